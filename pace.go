// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import "time"

const (
	burstGap     = 5 * time.Millisecond   // changes that are closer together are one burst
	burstCeiling = 100 * time.Millisecond // longest that a burst goes on unseen
	paceShare    = 4                      // what is spent is saved up in so many times as long
	paceCredit   = 250 * time.Millisecond // most that is saved up to be spent at once
	paceCeiling  = time.Second            // longest that anything waits for what is slow
)

// pace says when changes are worth the work of showing them. A change after quiet is shown
// at once. A burst is folded: it is shown when it pauses, and from time to time while it
// lasts. Over a longer time the work takes a fifth of it, so that neither a burst nor a
// slow consumer burns a core.
type pace struct {
	last   time.Time // when a change arrived last
	burst  bool      // soon after another
	shown  time.Time // when changes were last shown
	ended  time.Time // when that was done
	credit time.Duration
}

func (p *pace) arrived(now time.Time) {
	p.burst = now.Sub(p.last) < burstGap
	p.last = now
}

func (p *pace) worked(from, to time.Time) {
	saved := min(p.credit+from.Sub(p.ended)/paceShare, paceCredit)
	p.credit = max(saved-to.Sub(from), -paceCeiling/paceShare)
	p.shown, p.ended = from, to
}

// rested returns when there is time for the next work.
func (p *pace) rested() time.Time { return p.ended.Add(max(-p.credit, 0) * paceShare) }

// due returns when what has arrived is to be shown.
func (p *pace) due() time.Time {
	due := p.rested()
	if p.burst {
		if end := earlier(p.last.Add(burstGap), p.shown.Add(burstCeiling)); end.After(due) {
			return end
		}
	}
	return due
}
