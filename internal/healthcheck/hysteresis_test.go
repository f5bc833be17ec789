// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A row's results are one a second: "+" passes, "-" fails. Below each, "i" is in, "o" is out.
func TestHysteresis(t *testing.T) {
	for _, row := range []struct {
		name       string
		fall, rise int
		results    string
		want       string
	}{
		{"registers after rise successes", 3, 2, "++", "oi"},
		{"a failure begins the count anew", 3, 3, "++-++-+++", "ooooooooi"},
		{"goes out after fall failures", 3, 2, "++---", "oiiio"},
		{"a success begins the count anew", 3, 1, "+--+--+---", "iiiiiiiiio"},
		{"one of each", 1, 1, "+-+", "ioi"},
		{"the second return waits 5 s", 1, 1, "+-+-+++++", "ioiooooo" + "i"},
		{"and the third 10 s", 1, 1, "+-+-+++++" + "-++++++++++", "ioioooooi" + "ooooooooooi"},
		{"hold-down asks for rise successes at its end", 1, 2, "++-++-++++-++", "oiooi" + "ooooooo" + "i"},
		{"time spent out counts", 1, 1, "+-+-------+", "ioioooooooi"},
		{"a calm minute is the end of it", 1, 1, "+-+" + strings.Repeat("+", 60) + "-+", "ioi" + strings.Repeat("i", 60) + "oi"},
		{"a calm minute but one second is not", 1, 1, "+-+" + strings.Repeat("+", 58) + "-++++++", "ioi" + strings.Repeat("i", 58) + "oooooi" + "i"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := hysteresis{fall: row.fall, rise: row.rise}
			now := time.Unix(0, 0)
			got := ""
			for _, result := range row.results {
				h.observe(result == '+', now)
				got += map[bool]string{true: "i", false: "o"}[h.healthy]
				now = now.Add(time.Second)
			}
			if got != row.want {
				t.Errorf("\nresults %s\ngot     %s\nwant    %s", row.results, got, row.want)
			}
		})
	}
}

// Whatever a check does, no minute has more than 10 changes.
func TestChangesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hysteresis{fall: rapid.IntRange(1, 3).Draw(t, "fall"), rise: rapid.IntRange(1, 3).Draw(t, "rise")}
		step := time.Duration(rapid.IntRange(100, 5000).Draw(t, "ms")) * time.Millisecond
		now := time.Unix(0, 0)
		var changes []time.Time
		for now.Before(time.Unix(600, 0)) {
			run := rapid.IntRange(1, 60).Draw(t, "run")
			passed := rapid.Bool().Draw(t, "passed")
			for range run {
				if h.observe(passed, now) {
					changes = append(changes, now)
				}
				now = now.Add(step)
			}
		}
		for i := 10; i < len(changes); i++ {
			if within := changes[i].Sub(changes[i-10]); within < time.Minute {
				t.Fatalf("11 changes within %v", within)
			}
		}
	})
}

func TestHoldDownIsBounded(t *testing.T) {
	h := hysteresis{fall: 1, rise: 1}
	now := time.Unix(0, 0)
	for range 100 {
		h.observe(true, now)
		h.observe(false, now)
		if out := h.until.Sub(now); out > maxHoldDown {
			t.Fatalf("held for %v, more than %v", out, maxHoldDown)
		}
		now = h.until
	}
	if h.holdDown != maxHoldDown {
		t.Errorf("hold-down %v after 100 times, want %v", h.holdDown, maxHoldDown)
	}
}
