// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"slices"
	"strings"
)

// Stats are the figures of a Directory.
type Stats struct {
	// Now.
	Services   int // followed: one watch each
	KeyWatches int // of single keys, by Registrars
	Fallbacks  int // remembered without a subscriber
	Retained   int // instances retained by SelfPreservation
	Stale      int // services whose snapshot is stale, or that have none yet

	// Since the Directory was made.
	Lists             uint64 // lists begun, those of consistency checks among them
	Watches           uint64 // watches opened
	Inconsistencies   uint64 // snapshots found to differ from etcd, and mended
	SelfPreservations uint64 // times that SelfPreservation began
	Epochs            int    // times that etcd was found to have a new epoch
}

// ServiceStats are the figures of one service that a Directory follows.
type ServiceStats struct {
	Prefix      string // of the keys that are followed, "<service>/" or what was asked for
	Service     string // "" for a view of many services
	Subscribers int
	Snapshot    *Snapshot // the latest; nil before the first
	Err         error     // why there is none yet

	// Since the service was first subscribed to.
	Events    uint64 // received from the watch
	Published uint64 // snapshots published
}

// Stats returns the Directory's figures.
func (d *Directory) Stats() Stats {
	status, _ := d.group.Monitor().Status()
	counters := d.group.Counters()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{
		Fallbacks:         len(d.fallbacks.memory),
		Lists:             counters.Lists,
		Watches:           counters.Watches,
		Inconsistencies:   counters.Inconsistencies,
		SelfPreservations: d.preservations,
		Epochs:            status.Epoch - 1,
	}
	for keys, in := range d.informers {
		if keys.IsSingleKey() {
			s.KeyWatches++
			continue
		}
		s.Services++
		s.SelfPreservations += in.store.preservations.Load()
		snap := in.store.topic.Latest()
		if snap == nil || snap.stale != nil {
			s.Stale++
		}
		if snap != nil {
			s.Retained += len(snap.retained)
		}
	}
	return s
}

// ServiceStats returns the figures of the services that are followed now, sorted by prefix.
func (d *Directory) ServiceStats() []ServiceStats {
	d.mu.Lock()
	informers := make([]*informer, 0, len(d.informers))
	for keys, in := range d.informers {
		if !keys.IsSingleKey() {
			informers = append(informers, in)
		}
	}
	d.mu.Unlock()
	stats := make([]ServiceStats, len(informers))
	for i, in := range informers {
		t := in.store.topic
		stats[i] = ServiceStats{Prefix: in.store.empty.prefix, Service: in.service(), Subscribers: t.Count(), Snapshot: t.Latest(), Err: t.Why(),
			Events: in.store.events.Load(), Published: in.store.published.Load()}
	}
	slices.SortFunc(stats, func(a, b ServiceStats) int { return strings.Compare(a.Prefix, b.Prefix) })
	return stats
}
