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
	APIVersion    string         `json:"apiVersion"`
	Kind          string         `json:"kind"`
	Service       string         `json:"service"`
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

type fieldChange struct {
	Field string          `json:"field"`
	Old   json.RawMessage `json:"old"`
	New   json.RawMessage `json:"new"`
}

func newHistoryDocument(h *rollcall.History, rows []datedEvent) historyDocument {
	doc := historyDocument{APIVersion: apiVersion, Kind: "History", Service: h.Service, FirstRevision: h.First, LastRevision: h.Last,
		Compacted: h.Compacted, Omitted: h.Omitted, Events: make([]historyEntry, 0, len(rows))}
	split := inventory.Under(h.Service)
	for _, row := range rows {
		e := historyEntry{Revision: row.Revision, After: row.span.After.UTC(), Before: row.span.Before.UTC(), Event: eventText(row.HistoryEvent),
			Key: row.Key, Base64: inventory.Base64(row.Key)}
		for _, side := range []struct {
			from *rollcall.Instance
			to   **inventory.Instance
		}{{row.Old, &e.Old}, {row.New, &e.New}} {
			if side.from != nil {
				shown := inventory.Of(side.from, split)
				*side.to = &shown
			}
		}
		for _, c := range row.Fields() {
			e.Changes = append(e.Changes, fieldChange(c))
		}
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

// eventText is what happened in a word or two.
func eventText(e rollcall.HistoryEvent) string {
	switch {
	case e.Departure == rollcall.DepartureUnknown:
		return string(rollcall.EventGone)
	case e.Departure != "":
		return string(e.Departure)
	case e.Config != nil && e.Config.JSON == nil:
		return "config rm"
	case e.Config != nil:
		return "config set"
	}
	return string(e.Type)
}

// historyTable lists events, the oldest first.
func historyTable(service string, rows []datedEvent, now time.Time) string {
	all := [][]string{{"REVISION", "TIME", "EVENT", "ID", "ADDR", "DETAILS"}}
	for _, row := range rows {
		var id, addr string
		if row.Config == nil {
			_, id = inventory.Under(service)(row.Key)
		}
		if inst := row.Old; inst != nil {
			addr = inst.Addr
		}
		if inst := row.New; inst != nil {
			addr = inst.Addr
		}
		all = append(all, []string{strconv.FormatInt(row.Revision, 10), row.span.Text(now), eventText(row.HistoryEvent), id, addr, detailsText(row.HistoryEvent)})
	}
	return table(all...)
}

// detailsText is what else a table says of an event.
func detailsText(e rollcall.HistoryEvent) string {
	switch e.Type {
	case rollcall.EventCame:
		return metadataText(e.New.Metadata)
	case rollcall.EventInvalid:
		return e.Invalid.Cause.Error()
	case rollcall.EventConfig:
		return metadataText(e.Config.JSON)
	case rollcall.EventGone:
		return ""
	}
	return inventory.FieldsText(e.Fields())
}
