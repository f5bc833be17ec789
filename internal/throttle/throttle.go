// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package throttle decides when changes are worth the work of publishing them.
package throttle

import "time"

const (
	share     = 5                      // work takes one part in so many of the time, over a longer time
	maxCredit = 250 * time.Millisecond // most time that is saved up to be spent at once
	maxWait   = time.Second            // longest that anything waits for slow work

	// A burst is published so many times its cost apart, burstLimit at the most: 4 ms at a cost
	// of 50 us. That keeps what is published of a burst, and the garbage it makes, below what
	// receiving it takes. The scenarios burst, rate and round_robin of module bench show it.
	burstFactor = 75
	burstLimit  = 100 * time.Millisecond
	burstPause  = 5 * time.Millisecond // a burst that pauses for so long, or a quarter of what work takes, is over
	changeCost  = 5 * time.Microsecond // what each change adds to the cost, which folding does not save
)

// Throttle decides when changes are due, by what publishing them costs. A change that comes
// alone is due at once, as long as work takes no more than a fifth of the time, with some saved
// up: it may be waited for, as in a loop that makes one change after the other. Changes that
// come faster than each is worth its work are a burst: they are folded, and due when it pauses,
// and from time to time while it lasts. The zero value is ready to use; it is not safe for
// concurrent use.
type Throttle struct {
	ended  time.Time        // when the last work ended
	costs  [2]time.Duration // of it, and of the one before, whatever their number of changes
	cost   time.Duration    // the least of the last three: the others may have been held up
	burst  bool             // more than one change was published together
	credit time.Duration
}

// Worked notes that changes were published, when that ended, and how long it took.
func (t *Throttle) Worked(changes int, ended time.Time, took time.Duration) {
	took = max(took, 1)
	cost := took - min(time.Duration(changes)*changeCost, took/2)
	least := cost
	for _, before := range t.costs {
		if before > 0 {
			least = min(least, before)
		}
	}
	credit := max(min(t.credit+ended.Sub(t.ended)/share, maxCredit)-took, -maxWait/share)
	*t = Throttle{ended, [2]time.Duration{cost, t.costs[0]}, least, changes > 1, credit}
}

// Due returns when changes are to be published: so many since the last work, the last of them
// at a time. While a burst lasts, time is kept to show its end at once.
func (t *Throttle) Due(changes int, last time.Time) time.Time {
	wait, lasted := t.until(0), min(last.Sub(t.ended), maxWait)
	if changes > 1 || t.burst || lasted < t.cost { // what was published last was not worth it
		interval := min(t.cost*burstFactor, burstLimit)
		pause := lasted + max(burstPause, t.cost/4)
		wait = min(max(wait, min(max(interval, t.until(t.cost)), pause)), maxWait)
	}
	return t.ended.Add(wait)
}

// until returns how long after the last work there will be a credit.
func (t *Throttle) until(credit time.Duration) time.Duration { return max(credit-t.credit, 0) * share }
