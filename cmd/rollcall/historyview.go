// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// historyDocument is a rollcall.History as JSON.
type historyDocument struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	FirstRevision int64          `json:"firstRevision"`
	LastRevision  int64          `json:"lastRevision"`
	Compacted     bool           `json:"compacted"` // what was before the first revision
	Omitted       int            `json:"omitted"`   // older events that were over the limit
	Events        []historyEntry `json:"events"`
}

// historyEntry is one event.
type historyEntry struct {
	Revision int64               `json:"revision"`
	After    time.Time           `json:"after,omitzero"` // it happened then or later
	Before   time.Time           `json:"before,omitzero"`
	Event    string              `json:"event"`
	Key      string              `json:"key"`
	Base64   string              `json:"keyBase64,omitempty"`
	ID       string              `json:"id,omitempty"` // of an endpoint
	Old      *inventory.Instance `json:"old,omitempty"`
	New      *inventory.Instance `json:"new,omitempty"`
	Changes  []fieldChange       `json:"changes,omitempty"`
	Cause    string              `json:"cause,omitempty"` // why a value is invalid
	Config   *string             `json:"serviceConfig,omitempty"`
}

// fieldChange is a rollcall.FieldChange as JSON.
type fieldChange struct {
	Field string          `json:"field"`
	Old   json.RawMessage `json:"old"`
	New   json.RawMessage `json:"new"`
}

func fieldChanges(c rollcall.Change) (all []fieldChange) {
	for _, f := range c.Fields() {
		all = append(all, fieldChange(f))
	}
	return all
}

// instanceOf returns an instance as commands show it, nil for none.
func instanceOf(i *rollcall.Instance, split inventory.Splitter) *inventory.Instance {
	if i == nil {
		return nil
	}
	of := inventory.Of(i, split)
	return &of
}

func newHistoryDocument(h *rollcall.History, rows []datedEvent) historyDocument {
	doc := historyDocument{APIVersion: apiVersion, Kind: "History", serviceName: nameOf(h.Service), FirstRevision: h.First, LastRevision: h.Last,
		Compacted: h.Compacted, Omitted: h.Omitted, Events: make([]historyEntry, 0, len(rows))}
	split := inventory.Under(h.Service)
	for _, row := range rows {
		e := historyEntry{Revision: row.Revision, After: row.span.After.UTC(), Before: row.span.Before.UTC(), Event: inventory.EventText(row.HistoryEvent),
			Key: row.Key, Base64: inventory.Base64(row.Key), Old: instanceOf(row.Old, split), New: instanceOf(row.New, split), Changes: fieldChanges(row.Change)}
		switch {
		case row.Config == nil:
			_, e.ID = split(row.Key)
		case row.Config.JSON != nil:
			text := string(row.Config.JSON)
			e.Config = &text
		}
		if row.Invalid != nil {
			e.Cause = row.Invalid.Cause.Error()
		}
		doc.Events = append(doc.Events, e)
	}
	return doc
}

// historyTable lists events, the oldest first.
func historyTable(service string, rows []datedEvent, now time.Time) string {
	all := [][]string{{"REVISION", "TIME", "EVENT", "ID", "ADDRESS", "DETAILS"}}
	for _, row := range rows {
		shown := inventory.HistoryRowOf(service, row.HistoryEvent)
		all = append(all, []string{strconv.FormatInt(row.Revision, 10), row.span.Text(now), shown.Event, shown.ID, shown.Addr, shown.Details})
	}
	return table(all...)
}
