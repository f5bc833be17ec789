// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package throttle decides when changes are worth the work of publishing them.
package throttle

import "time"

// A burst goes by its gaps, not by what the last publication took: that may be 0.1 ms, which
// would make a thousand snapshots of 10,000 joins. A slow consumer, such as round_robin with
// 10,000 endpoints, takes 0.1 s for a state, and the garbage collector half as much again: a
// fifth of the time, with some saved up, leaves the core to others. The scenarios burst and
// rollout of module bench show both.
const (
	burstGap   = 5 * time.Millisecond   // changes that are closer together are one burst
	burstLimit = 100 * time.Millisecond // longest that a burst goes on unpublished
	share      = 4                      // time spent is saved up again in so many times as long
	maxCredit  = 250 * time.Millisecond // most time that is saved up to be spent at once
	maxWait    = time.Second            // longest that anything waits for slow work
)

// Throttle decides when pending changes are due. A change after quiet is due at once. A burst
// is folded: it is due when it pauses, and from time to time while it lasts. Over a longer
// time the work takes a fifth of it, so that neither a burst nor a slow consumer uses up a
// core. The zero value is ready to use; it is not safe for concurrent use.
type Throttle struct {
	arrived time.Time // when the last change arrived
	burst   bool      // it followed another one closely
	began   time.Time // when the last work began
	ended   time.Time // when it ended
	credit  time.Duration
}

// Arrived notes a change.
func (t *Throttle) Arrived(now time.Time) {
	t.burst = now.Sub(t.arrived) < burstGap
	t.arrived = now
}

// Worked notes that changes were published, from one time to another.
func (t *Throttle) Worked(from, to time.Time) {
	saved := min(t.credit+from.Sub(t.ended)/share, maxCredit)
	t.credit = max(saved-to.Sub(from), -maxWait/share)
	t.began, t.ended = from, to
}

// Rested returns when there is time for the next work, whether or not a burst goes on.
func (t *Throttle) Rested() time.Time { return t.ended.Add(max(-t.credit, 0) * share) }

// Due returns when the changes that have arrived are to be published.
func (t *Throttle) Due() time.Time {
	due := t.Rested()
	if !t.burst {
		return due
	}
	pause, limit := t.arrived.Add(burstGap), t.began.Add(burstLimit)
	if limit.Before(pause) {
		pause = limit
	}
	if pause.After(due) {
		return pause
	}
	return due
}
