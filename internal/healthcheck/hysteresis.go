// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import "time"

// How returns are damped: an endpoint that goes out for the second time within a calm time may not
// return for minHoldDown, then for twice as long each time, to maxHoldDown. So one whose checks flap as
// fast as they can is written at most 10 times in any minute: it goes out and returns at once, goes
// out and returns after 5 s, 10 s and 20 s.
const (
	minHoldDown = 5 * time.Second
	maxHoldDown = 5 * time.Minute
	calm        = time.Minute // without going out, after which what was before is forgotten
)

// hysteresis decides from the results of checks whether an endpoint is healthy.
type hysteresis struct {
	fall, rise int

	healthy  bool
	contrary int           // results in a row that contradict healthy
	since    time.Time     // when it last became healthy or unhealthy
	holdDown time.Duration // how long it may not return, when it goes out the next time
	until    time.Time     // may not return before
}

// observe takes the result of a check, and reports whether healthy has changed. An endpoint that
// goes out does so after fall failures at once; it returns after rise successes, no sooner than its
// hold-down allows.
func (h *hysteresis) observe(passed bool, now time.Time) (changed bool) {
	if passed == h.healthy {
		h.contrary = 0
		return false
	}
	h.contrary++
	switch {
	case !passed && h.contrary >= h.fall:
		if now.Sub(h.since) >= calm {
			h.holdDown = 0
		}
		h.until = now.Add(h.holdDown)
		h.holdDown = min(max(minHoldDown, 2*h.holdDown), maxHoldDown)
	case passed && h.contrary >= h.rise && !now.Before(h.until):
	default:
		return false
	}
	h.healthy, h.contrary, h.since = passed, 0, now
	return true
}

// due reports whether one more failure takes the endpoint out.
func (h *hysteresis) due() bool { return h.healthy && h.contrary+1 >= h.fall }

// damped reports whether only the hold-down keeps the endpoint out.
func (h *hysteresis) damped() bool { return !h.healthy && h.contrary >= h.rise }
