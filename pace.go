// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import "time"

const (
	burstGap     = 5 * time.Millisecond   // changes that are closer together are one burst
	burstCeiling = 50 * time.Millisecond  // longest that a burst goes on unseen
	paceCeiling  = 250 * time.Millisecond // longest that anything waits for what is slow
)

// pace says when changes are worth the work of showing them. A change after quiet is shown
// at once. A burst is folded: it is shown when it pauses, and from time to time while it
// lasts. What took d is not done again before 2d.
type pace struct {
	last   time.Time // when a change arrived last
	burst  bool      // soon after another
	shown  time.Time // when changes were last shown
	rested time.Time // not before then again
}

func (p *pace) arrived(now time.Time) {
	p.burst = now.Sub(p.last) < burstGap
	p.last = now
}

func (p *pace) worked(from, to time.Time) {
	p.shown, p.rested = from, to.Add(min(2*to.Sub(from), paceCeiling))
}

// due returns when what has arrived is to be shown.
func (p *pace) due() time.Time {
	if p.burst {
		if at := earlier(p.last.Add(burstGap), p.shown.Add(burstCeiling)); at.After(p.rested) {
			return at
		}
	}
	return p.rested
}
