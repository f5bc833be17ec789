// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package throttle decides when changes are worth the work of publishing them.
package throttle

import "time"

// A burst of joins into a large service costs what is published of it, and so it does under a
// balancer that takes long for each state: a fortieth of the time keeps that below what else
// the burst costs. A change that comes alone is waited for, be it the next of a loop that makes
// one change after the other: those may take a fifth. The scenarios burst, closed and rollout of
// module bench show it.
var (
	anything = budget{share: 5, most: 250 * time.Millisecond}
	bursts   = budget{share: 40, most: time.Millisecond}
)

const (
	burstPause = 5 * time.Millisecond   // a burst that pauses for so long is over
	burstLimit = 100 * time.Millisecond // longest that a burst goes on unpublished
	maxWait    = time.Second            // longest that anything waits for slow work
)

// budget is time to be spent on work: one part in so many of all time, of which some is saved up.
type budget struct {
	share time.Duration
	most  time.Duration
}

// Throttle decides when changes are due, by what publishing them costs. A change is due at
// once, as long as work takes no more than a fifth of the time, with some saved up. Changes
// that come faster than each is worth its work are a burst: they may take a fortieth of the
// time, and are due when it pauses. The zero value is ready to use; it is not safe for
// concurrent use.
type Throttle struct {
	ended time.Time     // when the last work ended
	cost  time.Duration // what it took
	burst bool          // more than one change was published together

	credit, burstCredit time.Duration
}

// Worked notes that changes were published, when that ended, and what it cost.
func (t *Throttle) Worked(changes int, ended time.Time, cost time.Duration) {
	since := ended.Sub(t.ended)
	*t = Throttle{ended, cost, changes > 1, anything.after(t.credit, since, cost, maxWait/anything.share), bursts.after(t.burstCredit, since, cost, cost)}
}

// after returns the credit after work of a cost, so long after it was what it is; more than a
// debt is remitted.
func (b budget) after(credit, since, cost, debt time.Duration) time.Duration {
	return max(min(credit+since/b.share, b.most)-cost, -debt)
}

// wait returns how long it takes until a credit is not negative.
func (b budget) wait(credit time.Duration) time.Duration { return max(-credit, 0) * b.share }

// Due returns when changes are to be published: so many since the last work, the last of them
// at a time. While a burst lasts, time is kept to show its end at once.
func (t *Throttle) Due(changes int, last time.Time) time.Time {
	wait, lasted := anything.wait(t.credit), min(last.Sub(t.ended), maxWait)
	if changes > 1 || t.burst || lasted < t.cost { // what was published last was not worth it
		limit := max(min(bursts.wait(t.burstCredit), burstLimit), anything.wait(t.credit-t.cost))
		wait = min(max(wait, min(limit, lasted+burstPause)), maxWait)
	}
	return t.ended.Add(wait)
}
