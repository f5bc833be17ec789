// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// SelfPreservation keeps instances callable for a while that vanish in a mass, as Eureka
// does. When a whole fleet loses its leases at once, to an outage of the network between it
// and etcd or to a failover of etcd, most of its servers are still there, and calling them
// is better than calling none. The zero value retains nothing.
//
// etcd's events do not say why a key went. An instance that was last seen draining left on
// purpose and is never retained. A Registrar marks what it deregisters so, where the metadata
// is an object or nothing and etcd takes writes. Servers that deregister without the mark, as
// those of etcd's package do, look lost when they are restarted under other ids: leave
// SelfPreservation off until they are gone.
type SelfPreservation struct {
	// Share is a part of a service's instances, above 0 and below 1. While those that have
	// vanished within Retain are more than that part of them and of the present ones together,
	// all of them are retained. 0 retains nothing.
	Share float64
	// Retain is how long an instance is retained after it vanished, unless its key is written
	// again. Default 5 min.
	Retain time.Duration
}

func (p SelfPreservation) withDefaults() (SelfPreservation, error) {
	if p.Share < 0 || p.Share >= 1 {
		return p, inputError("self-preservation", fmt.Sprint(p.Share), "the share must be 0, for none, or between 0 and 1")
	}
	if p.Retain < 0 {
		return p, inputError("self-preservation", p.Retain.String(), "the time to retain must not be negative")
	}
	if p.Retain == 0 {
		p.Retain = 5 * time.Minute
	}
	return p, nil
}

// losses are the instances that were seen to vanish, not on purpose, and not to come back. A
// nil map records none.
type losses map[string]loss

type loss struct {
	inst  *Instance
	until time.Time // when it need not be retained any longer
}

// observe records a change of a key whose instance was old. A key with an invalid value has not
// vanished: it was written.
func (l losses) observe(key string, old *Instance, now entry, until time.Time) {
	switch {
	case l == nil:
	case now != entry{}:
		delete(l, key)
	case old != nil && !old.Draining():
		l[key] = loss{old, until}
	}
}

// retained returns the instances to retain beside those present, sorted by key: all that were
// lost lately when they are more than the share of both together. It drops those that need
// not be retained any longer; next is when the first of the others will be, zero for none.
func (l losses) retained(share float64, present int, now time.Time) (retained []*Instance, next time.Time) {
	for key, lost := range l {
		if !now.Before(lost.until) {
			delete(l, key)
			continue
		}
		retained = append(retained, lost.inst)
		if next.IsZero() || lost.until.Before(next) {
			next = lost.until
		}
	}
	if float64(len(retained)) <= share*float64(present+len(retained)) {
		return nil, next
	}
	slices.SortFunc(retained, func(a, b *Instance) int { return strings.Compare(a.Key, b.Key) })
	return retained, next
}
