// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"encoding/json"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// HistoryRow is an event of a history as people are shown it.
type HistoryRow struct {
	Event   string // what happened, in a word or two
	ID      string // of an endpoint; "": it is about the service config
	Addr    string
	Details string
}

// HistoryRowOf returns the row of an event of a service.
func HistoryRowOf(service string, e rollcall.HistoryEvent) HistoryRow {
	row := HistoryRow{Event: EventText(e), Details: eventDetails(e)}
	if e.Config == nil {
		_, row.ID = Under(service)(e.Key)
	}
	switch {
	case e.New != nil:
		row.Addr = e.New.Addr
	case e.Old != nil:
		row.Addr = e.Old.Addr
	}
	return row
}

// EventText is what happened in a word or two.
func EventText(e rollcall.HistoryEvent) string {
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

// eventDetails is what else there is to say of an event.
func eventDetails(e rollcall.HistoryEvent) string {
	switch e.Type {
	case rollcall.EventCame:
		return MetadataText(e.New.Metadata)
	case rollcall.EventInvalid:
		return e.Invalid.Cause.Error()
	case rollcall.EventConfig:
		return MetadataText(e.Config.JSON)
	case rollcall.EventGone:
		return e.Departure.Reason()
	}
	return FieldsText(e.Fields())
}

// MetadataText is metadata for a table: on one line, at most 60 characters.
func MetadataText(metadata json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, metadata) != nil {
		return string(metadata)
	}
	return printable.Shorten(b.String(), 60)
}
