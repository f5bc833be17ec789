// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// History is what happened to a service, out of etcd's own memory of its keys.
type History struct {
	Service string
	Events  []HistoryEvent // in the order in which they happened

	// First and Last are the revisions between which Events has all that happened, both included.
	// What was before First was not asked for, or was compacted, or was over the limit.
	First, Last int64
	Compacted   bool // First is where etcd's memory begins
	Omitted     int  // older events that were over the limit

	Keys    int64  // that the service has now
	Cluster uint64 // etcd's ID of the cluster that told it
	// ConfigErr is why the events of the service config are missing; nil: they are not.
	ConfigErr error
}

// EventType is what happened to a key.
type EventType string

const (
	EventCame      EventType = "came"      // an instance, where there was none
	EventChanged   EventType = "changed"   // see Change.Fields
	EventDrained   EventType = "drained"   // it was marked as draining, and may have changed otherwise
	EventUndrained EventType = "undrained" // it was no longer marked so
	EventGone      EventType = "gone"      // the key was deleted; Departure tells why
	EventInvalid   EventType = "invalid"   // a value that is not an endpoint was written
	EventConfig    EventType = "config"    // the service config was written or deleted
)

// HistoryEvent is one write or deletion of a key.
type HistoryEvent struct {
	Change
	Revision  int64
	Type      EventType
	Departure Departure      // of EventGone
	Invalid   *Invalid       // of EventInvalid
	Config    *ServiceConfig // of EventConfig; its JSON is nil where it was deleted

	before, after clientv3.LeaseID // the key's
}

// historyEvent returns what an event of etcd's, with the key-value before it, means.
func historyEvent(ev *clientv3.Event, prefix string) HistoryEvent {
	var was entry
	if ev.PrevKv != nil {
		was = decodeEntry(ev.PrevKv, prefix)
	}
	now := decodeEvent(ev, prefix)
	e := HistoryEvent{
		Change:   Change{Key: string(ev.Kv.Key), Old: was.instance, New: now.instance},
		Revision: ev.Kv.ModRevision,
		Invalid:  now.invalid,
		Config:   now.config,
		before:   clientv3.LeaseID(ev.PrevKv.GetLease()),
		after:    clientv3.LeaseID(ev.Kv.Lease),
	}
	switch {
	case isConfigKey(ev.Kv.Key):
		e.Type = EventConfig
		if e.Config == nil {
			e.Config = decodeServiceConfig(&mvccpb.KeyValue{Key: ev.Kv.Key, ModRevision: e.Revision})
			e.Config.JSON = nil
		}
	case e.Invalid != nil:
		e.Type = EventInvalid
	case e.New == nil:
		e.Type = EventGone
	case e.Old == nil:
		e.Type = EventCame
	case e.Old.Draining() == e.New.Draining():
		e.Type = EventChanged
	case e.New.Draining():
		e.Type = EventDrained
	default:
		e.Type = EventUndrained
	}
	return e
}

// history collects events, the newest of them.
type history struct {
	prefix  string
	limit   int
	events  []HistoryEvent
	omitted int
}

func (h *history) add(events []*clientv3.Event) {
	for _, ev := range events {
		if len(h.events) >= 2*h.limit {
			h.trim()
		}
		h.events = append(h.events, historyEvent(ev, h.prefix))
	}
}

// trim forgets the oldest events, those over the limit.
func (h *history) trim() {
	over := max(len(h.events)-h.limit, 0)
	h.omitted += over
	h.events = slices.Delete(h.events, 0, over)
}

func (h *history) restart() { h.events, h.omitted = nil, 0 }

// merge takes in the events of another key range.
func (h *history) merge(o *history) {
	h.events = append(h.events, o.events...)
	h.omitted += o.omitted
	slices.SortStableFunc(h.events, func(a, b HistoryEvent) int { return cmp.Compare(a.Revision, b.Revision) })
	h.trim()
}

// depart sets why keys are gone. What lease states etcd's own memory does not tell, states is
// asked for.
func (h *history) depart(states func([]clientv3.LeaseID) map[clientv3.LeaseID]leaseState) {
	known, hints := make(map[int]leaseState), make(map[int]leaseState) // by index of the event
	used := make(map[clientv3.LeaseID]bool)                            // after the events at hand
	var ask []clientv3.LeaseID
	for end := len(h.events); end > 0; {
		begin := end
		for begin > 0 && h.events[begin-1].Revision == h.events[end-1].Revision {
			begin--
		}
		group := h.events[begin:end]
		ended := leaseEnd(group)
		for i, e := range group {
			switch {
			case e.Type != EventGone || e.before == clientv3.NoLease:
			case used[e.before] || !ended:
				known[begin+i] = leaseAlive
			default:
				ask = append(ask, e.before)
				if len(group) > 1 {
					hints[begin+i] = leaseGone
				}
			}
		}
		for _, e := range group {
			used[e.before], used[e.after] = true, true
		}
		end = begin
	}
	slices.Sort(ask)
	answers := states(slices.Compact(ask))
	for i := range h.events {
		if e := &h.events[i]; e.Type == EventGone {
			e.Departure = departureOf(e.Old, e.before, cmp.Or(known[i], answers[e.before], hints[i]))
		}
	}
}

// leaseEnd reports whether what happened at one revision may be the end of a lease: that deletes
// the keys of one lease and does nothing else.
func leaseEnd(group []HistoryEvent) bool {
	return !slices.ContainsFunc(group, func(e HistoryEvent) bool { return e.Type != EventGone || e.before != group[0].before })
}
