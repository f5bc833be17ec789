// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package throttle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const (
	us = time.Microsecond
	ms = time.Millisecond
)

// P7: what comes alone is shown at once, a burst when it pauses or from time to time, and what
// takes long not more often than it can be afforded.
func TestDue(t *testing.T) {
	began := time.Unix(1, 0)
	at := func(d time.Duration) time.Time { return began.Add(d) }
	for _, row := range []struct {
		name    string
		last    Throttle // ended at 0
		changes int
		arrived time.Duration // the last of them
		want    time.Duration
	}{
		{"the first of all", Throttle{}, 1, 0, 0},
		{"the first of all, with others", Throttle{}, 9, 0, 0},
		{"alone", Throttle{cost: ms}, 1, 30 * ms, 0},
		{"alone, as soon as it can be", Throttle{cost: ms}, 1, ms, 0},
		{"alone, unpaid", Throttle{cost: 100 * ms, credit: -100 * ms}, 1, 200 * ms, 500 * ms},
		{"overtakes what was published", Throttle{cost: 20 * us, credit: ms}, 1, 10 * us, 1500 * us},
		{"a burst", Throttle{cost: 20 * us, credit: ms}, 3, ms, 1500 * us},
		{"a burst that pauses", Throttle{cost: 8 * ms, credit: 20 * ms}, 3, 2 * ms, 7 * ms},
		{"a burst that pauses, for work that is slow", Throttle{cost: 40 * ms, credit: 20 * ms}, 3, 2 * ms, 12 * ms},
		{"a burst that goes on", Throttle{cost: 10 * ms, credit: 20 * ms}, 30, 99 * ms, 100 * ms},
		{"a burst that goes on, with nothing left for its end", Throttle{cost: 30 * ms, credit: -5 * ms}, 30, 174 * ms, 175 * ms},
		{"a burst that pauses, unpaid", Throttle{cost: 8 * ms, credit: -5 * ms}, 30, 2 * ms, 25 * ms},
		{"alone after a burst", Throttle{cost: 8 * ms, credit: 20 * ms, burst: true}, 1, 3 * ms, 8 * ms},
		{"alone long after a burst", Throttle{cost: 8 * ms, credit: 20 * ms, burst: true}, 1, time.Minute, 100 * ms},
		{"slower than ever", Throttle{cost: time.Hour, credit: -maxWait / 5}, 2, maxWait - ms, maxWait},
	} {
		if row.last != (Throttle{}) {
			row.last.ended = at(0)
		}
		due := row.last.Due(row.changes, at(row.arrived))
		if want := at(row.want); due.After(want.Add(us)) || !row.last.ended.IsZero() && due.Before(want.Add(-us)) {
			t.Errorf("%s: due after %v, want %v", row.name, due.Sub(began), row.want)
		}
	}
}

// run is what becomes of changes.
type run struct {
	delays []time.Duration // from the arrival of a change until it is shown, sorted
	share  float64         // of the time that publishing took
}

func (r run) quantile(q float64) time.Duration { return r.delays[int(q*float64(len(r.delays)-1))] }

// simulate publishes changes at a cost each time, in virtual time. Gap returns when the change
// after the i-th one arrives; of a closed loop, after that was shown.
func simulate(changes int, cost time.Duration, closed bool, gap func(i int) time.Duration) (r run) {
	var throttle Throttle
	began := time.Unix(1, 0)
	now, next, arrived := time.Duration(0), time.Duration(0), 0
	var pending []time.Duration
	var worked time.Duration
	for arrived < changes || len(pending) > 0 {
		for arrived < changes && next <= now && !(closed && len(pending) > 0) {
			pending = append(pending, next)
			next += gap(arrived)
			arrived++
		}
		due := time.Duration(math.MaxInt64)
		if len(pending) > 0 {
			due = throttle.Due(len(pending), began.Add(pending[len(pending)-1])).Sub(began)
		}
		if due > now {
			if now = due; arrived < changes {
				now = min(due, next)
			}
			continue
		}
		now += cost
		worked += cost
		throttle.Worked(len(pending), began.Add(now), cost)
		for _, at := range pending {
			r.delays = append(r.delays, now-at)
		}
		if pending = pending[:0]; closed {
			next = now + gap(arrived)
		}
	}
	slices.Sort(r.delays)
	r.share = float64(worked) / float64(now)
	return r
}

// arrivals are ways in which changes arrive at a rate.
var arrivals = map[string]func(gap time.Duration) func(int) time.Duration{
	"regularly": func(gap time.Duration) func(int) time.Duration { return func(int) time.Duration { return gap } },
	"at random": func(gap time.Duration) func(int) time.Duration {
		random := rand.New(rand.NewPCG(1, 2))
		return func(int) time.Duration { return time.Duration(random.ExpFloat64() * float64(gap)) }
	},
	"in groups": func(gap time.Duration) func(int) time.Duration { // of ten
		return func(i int) time.Duration {
			if i%10 < 9 {
				return min(20*us, gap)
			}
			return max(10*gap-9*20*us, gap)
		}
	},
}

// Whatever the rate and the cost: changes are shown at once where that takes less than a fifth
// of the time, else as soon as can be afforded.
func TestSimulation(t *testing.T) {
	for how, arrive := range arrivals {
		for _, rate := range []int{1, 10, 50, 100, 250, 500, 1000, 2000, 5000, 10_000} {
			for _, cost := range []time.Duration{us, 10 * us, 50 * us, 200 * us, ms, 5 * ms, 20 * ms, 100 * ms} {
				gap := time.Second / time.Duration(rate)
				r := simulate(max(20*rate, 100), cost, false, arrive(gap))
				name := fmt.Sprintf("%d changes a second, %s, at a cost of %v", rate, how, cost)
				if most := 1.0/5 + 0.02; r.share > most {
					t.Errorf("%s: they take %.3f of the time, want at most %.2f", name, r.share, most)
				}
				// A burst is shown at least every 100 ms, or as often as a fifth of the time
				// allows, with one publication kept back for its end.
				longest := max(min(burstFactor*cost, burstLimit), 10*cost) + 2*cost + us
				if r.quantile(1) > longest {
					t.Errorf("%s: the longest wait is %v, want at most %v", name, r.quantile(1), longest)
				}
				if how == "at random" && 100*cost <= gap && r.quantile(0.9) > cost {
					t.Errorf("%s: 1 in 10 is shown after %v, though there is time for each", name, r.quantile(0.9))
				}
				if how == "regularly" && 5*cost <= gap && r.quantile(1) > cost {
					t.Errorf("%s: the longest wait is %v, though there is time for each", name, r.quantile(1))
				}
			}
		}
	}
}

// A closed loop makes its next change when the last one was shown: nothing is to be folded.
func TestClosedLoop(t *testing.T) {
	for _, cost := range []time.Duration{us, 20 * us, 200 * us, ms} {
		r := simulate(10_000, cost, true, func(int) time.Duration { return 5 * cost })
		if r.quantile(1) > cost {
			t.Errorf("at a cost of %v a change is shown after %v", cost, r.quantile(1))
		}
	}
}

// The end of a burst is shown within a few milliseconds, as far as the burst left time for it.
func TestEndOfBurst(t *testing.T) {
	for _, cost := range []time.Duration{us, 50 * us, ms, 10 * ms} {
		last := time.Duration(0)
		r := simulate(2001, cost, false, func(i int) time.Duration {
			if last = 200 * us; i == 1999 {
				return 100 * us
			}
			return last
		})
		if end := r.delays[0]; end > burstPause+2*cost {
			t.Errorf("at a cost of %v the last change is shown after %v", cost, end)
		}
	}
}

// Credit is saved up, but not for ever, and the cost is what work takes apart from what each
// change adds, unless it was held up.
func TestWorked(t *testing.T) {
	at := time.Unix(1, 0)
	var throttle Throttle
	for _, row := range []struct {
		name        string
		changes     int
		since, took time.Duration
		credit      time.Duration
		cost        time.Duration
		burst       bool
	}{
		{"at first", 1, 0, 50 * ms, 200 * ms, 50*ms - changeCost, false},
		{"soon", 1, 100 * ms, 50 * ms, 170 * ms, 50*ms - changeCost, false},
		{"soon, held up", 1, 100 * ms, 90 * ms, 100 * ms, 50*ms - changeCost, false},
		{"many", 100, 100 * ms, 3 * ms, 117 * ms, 3*ms - 100*changeCost, true},
		{"many, which took as long as each", 100, 100 * ms, 500 * us, 136500 * us, 250 * us, true},
		{"after a long time", 1, time.Hour, 50 * ms, 200 * ms, 250 * us, false},
		{"for a long time", 1, time.Second, time.Hour, -maxWait / 5, 250 * us, false},
		{"in no time", 1, time.Second, 0, 0, 1, false},
	} {
		at = at.Add(row.since)
		throttle.Worked(row.changes, at, row.took)
		if got := throttle; got.credit.Round(us) != row.credit || got.cost != row.cost || got.burst != row.burst {
			t.Errorf("%s: credit %v, cost %v, burst %t, want %v, %v, %t", row.name, got.credit, got.cost, got.burst, row.credit, row.cost, row.burst)
		}
	}
}
