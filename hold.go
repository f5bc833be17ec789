// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// SelfPreservation has instances that vanish in a mass stay callable for a while. When a whole fleet
// loses its leases at once, to an outage of the network between it and etcd or to a
// failover of etcd, its servers are mostly still there; calling them beats calling nobody.
// The zero value holds nothing.
//
// etcd's events do not say why a key went. An instance that was last seen draining went
// on purpose and is never held. A Registrar marks what it deregisters so, where the
// metadata is an object or nothing and etcd takes writes.
type SelfPreservation struct {
	// Share is the part of a service's instances, above 0 and below 1, that must have
	// vanished within Retain for those to be held. 0 holds nothing.
	Share float64
	// Retain is how long an instance is held after it vanished. Default 5 min.
	Retain time.Duration
}

func (h SelfPreservation) withDefaults() (SelfPreservation, error) {
	if h.Share < 0 || h.Share >= 1 {
		return h, inputError("hold", fmt.Sprint(h.Share), "the share must be 0, for no hold, or between 0 and 1")
	}
	if h.Retain < 0 {
		return h, inputError("hold", h.Retain.String(), "the longest hold must not be negative")
	}
	if h.Retain == 0 {
		h.Retain = 5 * time.Minute
	}
	return h, nil
}

// losses are the instances that a feed saw vanish, not on purpose, and not come back.
type losses map[string]loss

type loss struct {
	inst  *Instance
	until time.Time // when it need not be held any longer
}

// note takes down what became of a key that held old. A value that is no endpoint did
// not vanish: it was written.
func (l losses) note(key string, old *Instance, now entry, until time.Time) {
	switch {
	case now != entry{}:
		delete(l, key)
	case old != nil && !old.Draining():
		l[key] = loss{old, until}
	}
}

// held returns the instances to hold beside those present, sorted by key: all that were
// lost lately when they are more than the share of both together. What is too old is
// forgotten; next is when that will be the case again, zero when it will not.
func (l losses) held(share float64, present int, now time.Time) (held []*Instance, next time.Time) {
	for key, lost := range l {
		if !now.Before(lost.until) {
			delete(l, key)
			continue
		}
		held = append(held, lost.inst)
		if next.IsZero() || lost.until.Before(next) {
			next = lost.until
		}
	}
	if float64(len(held)) <= share*float64(present+len(held)) {
		return nil, next
	}
	slices.SortFunc(held, func(a, b *Instance) int { return strings.Compare(a.Key, b.Key) })
	return held, next
}

func (f *feed) holdUntil() time.Time { return time.Now().Add(f.dir.hold.Retain) }

// setHeld adds what is held to a snapshot that nobody has seen yet.
func (f *feed) setHeld(snap *Snapshot) {
	if f.lost == nil {
		return
	}
	shown, _ := f.latest()
	begins := shown == nil || len(shown.held) == 0
	snap.held, f.holding = f.lost.held(f.dir.hold.Share, len(snap.instances), time.Now())
	if len(snap.held) > 0 && begins {
		f.dir.stats.holds.Add(1)
		f.dir.log.Warn("most instances vanished at once: holding them", "prefix", f.span.Key,
			"held", len(snap.held), "left", len(snap.instances), "longest", f.dir.hold.Retain)
	}
}

// expireHold drops what has been held for long enough.
func (f *feed) expireHold() {
	if f.holding.IsZero() || time.Now().Before(f.holding) {
		return
	}
	old, _ := f.latest()
	snap := old.restated(old.stale)
	if f.setHeld(snap); len(snap.held) != len(old.held) {
		f.publish(snap, nil)
	}
}

// nextAlarm returns when a feed that hears nothing has something to do.
func (f *feed) nextAlarm() time.Time {
	if f.holding.IsZero() {
		return f.audited
	}
	return earlier(f.audited, f.holding)
}
