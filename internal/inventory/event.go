// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// Event is an instance that was added, changed or removed.
type Event struct {
	Type     string   `json:"type"`            // PUT or DELETE
	Revision int64    `json:"revision"`        // of the snapshot that has the change
	Instance Instance `json:"instance"`        // for DELETE, as it was
	Cause    string   `json:"cause,omitempty"` // why clients leave it out although the key exists

	Reason rollcall.Departure `json:"reason,omitempty"` // for DELETE where the key is gone, why: see Explain
	Sign   string             `json:"-"`                // "+" added, "~" changed, "-" removed
	Change rollcall.Change    `json:"-"`
}

// Events returns the changes from old to snap, sorted by key.
func Events(old, snap *rollcall.Snapshot, split Splitter) []Event {
	changes := snap.Diff(old)
	if len(changes) == 0 {
		return nil
	}
	causes := make(map[string]string)
	for _, r := range snap.Invalid() {
		causes[r.Key] = "invalid: " + r.Cause.Error()
	}
	all := make([]Event, 0, len(changes))
	for _, c := range changes {
		e := Event{Type: "PUT", Revision: snap.Revision(), Sign: "+", Change: c}
		switch {
		case c.New == nil:
			e.Type, e.Sign, e.Cause = "DELETE", "-", causes[c.Key]
			e.Instance = Of(c.Old, split)
			if e.Cause == "" && snap.NewEpoch(old) { // nobody need have deleted it
				e.Reason = rollcall.DepartureUnknown
			}
		default:
			if c.Old != nil {
				e.Sign = "~"
			}
			e.Instance = Of(c.New, split)
			if err := rollcall.HostPort(c.New.Addr); err != nil {
				e.Cause = "disallowed: " + Reason(err)
			}
		}
		all = append(all, e)
	}
	return all
}

// Explain sets why endpoints went, unless that cannot be known. It asks etcd, until ctx ends.
func Explain(ctx context.Context, dir *rollcall.Directory, events []Event) {
	var gone []*rollcall.Instance
	var at []int
	for i, e := range events {
		if e.Change.New == nil && e.Cause == "" && e.Reason == "" {
			gone, at = append(gone, e.Change.Old), append(at, i)
		}
	}
	if len(gone) == 0 {
		return
	}
	for i, reason := range dir.Departures(ctx, gone...) {
		events[at[i]].Reason = reason
	}
}

// ChangeText is what a write did to an endpoint that stays.
func ChangeText(c rollcall.Change) string {
	switch was, is := c.Old.Draining(), c.New.Draining(); {
	case was && !is:
		return "undrained"
	case is && !was:
		return "drained"
	}
	return FieldsText(c.Fields())
}

// FieldsText is what a write changed, such as "weight: 1 -> 2", on one line.
func FieldsText(changes []rollcall.FieldChange) string {
	if len(changes) == 0 {
		return "the same value was written again"
	}
	texts := make([]string, len(changes))
	for i, c := range changes {
		texts[i] = fmt.Sprintf("%s: %s -> %s", c.Field, valueText(c.Old), valueText(c.New))
	}
	return strings.Join(texts, ", ")
}

// valueText is the value of a field: a string without quotes, "-" for none.
func valueText(value json.RawMessage) string {
	var text string
	if value == nil {
		return "-"
	}
	if json.Unmarshal(value, &text) == nil && text != "" && text != "-" {
		return printable.Shorten(text, 40)
	}
	return printable.Shorten(string(value), 40)
}
