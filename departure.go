// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Departure is why a key is no longer in etcd, as far as etcd can tell. Etcd records that a key
// was deleted and not by whom; what it had been, and whether its lease still lives, tells the rest.
type Departure string

const (
	// DepartureLeft: it had been marked as draining before, as a server that stops does.
	DepartureLeft Departure = "left"
	// DepartureExpired: its lease is gone, since nobody renewed it or somebody revoked it.
	DepartureExpired Departure = "expired"
	// DepartureDeleted: its lease lives on, or it had none, so that somebody deleted the key.
	DepartureDeleted Departure = "deleted"
	// DepartureUnknown: etcd could not be asked about its lease.
	DepartureUnknown Departure = "unknown"
)

// Explain returns the Departure with its reason, for people: "left (it was draining)".
func (d Departure) Explain() string {
	switch d {
	case DepartureLeft, DepartureExpired:
		return string(d) + " (" + d.Reason() + ")"
	case DepartureDeleted:
		return "deleted by hand (" + d.Reason() + ")"
	}
	return "gone (" + d.Reason() + ")"
}

// Reason returns what the Departure is known by.
func (d Departure) Reason() string {
	switch d {
	case DepartureLeft:
		return "it was draining"
	case DepartureExpired:
		return "its lease is gone"
	case DepartureDeleted:
		return "no lease ended"
	}
	return "etcd does not tell why"
}

// leaseState is what is known of a lease.
type leaseState int

const (
	leaseUnknown leaseState = iota
	leaseAlive
	leaseGone
)

// departureOf returns why a key is gone: it was an instance, nil for an invalid value, under a
// lease of that state.
func departureOf(was *Instance, lease clientv3.LeaseID, state leaseState) Departure {
	switch {
	case was != nil && was.Draining():
		return DepartureLeft
	case lease == clientv3.NoLease || state == leaseAlive:
		return DepartureDeleted
	case state == leaseGone:
		return DepartureExpired
	}
	return DepartureUnknown
}

// keepDrained is how long drainedKeys keeps a value at least, which is twice that at most where more keys
// come or go.
const keepDrained = time.Minute

// drainedKeys has the last values of keys that were deleted while marked as draining. Where the mark and the
// deletion are published together, or a slow subscriber skips what is between them, no snapshot that it
// sees has the mark.
type drainedKeys struct {
	newer, older map[string]*Instance
	began        time.Time // with newer
}

// observe takes in what a key was when it was deleted, nil for no instance.
func (d *drainedKeys) observe(was *Instance) {
	if was == nil || !was.Draining() {
		return
	}
	if d.forget(); d.newer == nil {
		d.newer = make(map[string]*Instance)
	}
	d.newer[was.Key] = was
}

// forget drops what was kept for long enough.
func (d *drainedKeys) forget() {
	if time.Since(d.began) >= keepDrained {
		d.newer, d.older, d.began = nil, d.newer, time.Now()
	}
}

// last returns the value of a key when it was deleted, nil where that is not known.
func (d *drainedKeys) last(key string) *Instance { return cmp.Or(d.newer[key], d.older[key]) }
