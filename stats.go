// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import "sync/atomic"

// Stats count what a Directory does.
type Stats struct {
	// Now.
	Services  int // followed: one watch each
	Fallbacks int // kept without a subscriber
	Retained  int // instances held by a Hold
	Stale     int // services whose snapshot is stale, or that have none yet

	// Since the Directory was made.
	Lists             uint64 // lists begun, those of audits among them
	Watches           uint64 // watches opened
	Inconsistencies   uint64 // snapshots found to differ from etcd, and mended
	SelfPreservations uint64 // times that a Hold began to hold
	Epochs            int    // times that etcd was found to have another history
}

type counters struct{ watches, drifts, holds atomic.Uint64 }

// Stats returns the Directory's figures.
func (d *Directory) Stats() Stats {
	v, _ := d.link.current()
	s := Stats{
		Lists:             d.lister.lists.Load(),
		Watches:           d.stats.watches.Load(),
		Inconsistencies:   d.stats.drifts.Load(),
		SelfPreservations: d.stats.holds.Load(),
		Epochs:            v.history,
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Services, s.Fallbacks = len(d.feeds), len(d.kept)
	for _, f := range d.feeds {
		snap, _ := f.latest()
		if snap == nil || snap.stale != nil {
			s.Stale++
		}
		if snap != nil {
			s.Retained += len(snap.held)
		}
	}
	return s
}
