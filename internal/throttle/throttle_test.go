// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package throttle

import (
	"testing"
	"time"
)

// P7: what is alone is shown at once, what comes in a burst when that pauses, or from time
// to time, and what takes long not more often than it can be afforded.
func TestThrottle(t *testing.T) {
	const ms = time.Millisecond
	for _, row := range []struct {
		name  string
		at    []time.Duration // changes
		works time.Duration
		want  []time.Duration // when they are shown
	}{
		{"alone", []time.Duration{0, 30 * ms, 60 * ms}, ms, []time.Duration{0, 30 * ms, 60 * ms}},
		{"a pair", []time.Duration{0, ms}, 0, []time.Duration{0, 6 * ms}},
		{"a burst", []time.Duration{0, ms, 2 * ms, 3 * ms, 4 * ms}, 0, []time.Duration{0, 9 * ms}},
		{"a long burst", every(4*ms, 60), 0, []time.Duration{0, 100 * ms, 200 * ms, 241 * ms}},
		{"slow", every(30*ms, 60), 125 * ms, []time.Duration{0, 126 * ms, 252 * ms, 877 * ms, 1502 * ms, 2127 * ms}},
		{"very slow", []time.Duration{0, 100 * ms, 1500 * ms, 3500 * ms}, 500 * ms, []time.Duration{0, 1500 * ms, 3500 * ms}},
	} {
		t.Run(row.name, func(t *testing.T) {
			began := time.Now()
			var p Throttle
			var got []time.Duration
			pending, changes := false, row.at
			for now := time.Duration(0); now < 5*time.Second; now += ms {
				for len(changes) > 0 && changes[0] <= now {
					p.Arrived(began.Add(changes[0]))
					changes, pending = changes[1:], true
				}
				if due := p.Due(); pending && !due.After(began.Add(now)) {
					got = append(got, now)
					p.Worked(began.Add(now), began.Add(now+row.works))
					now += row.works
					pending = false
				}
			}
			if len(got) != len(row.want) {
				t.Fatalf("shown at %v, want %v", got, row.want)
			}
			for i := range got {
				if d := got[i] - row.want[i]; d < -2*ms || d > 2*ms {
					t.Fatalf("shown at %v, want %v", got, row.want)
				}
			}
		})
	}
}

func every(step time.Duration, n int) (at []time.Duration) {
	for i := range n {
		at = append(at, time.Duration(i)*step)
	}
	return at
}
