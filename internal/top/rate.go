// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import "time"

// rateSeconds is how many seconds a rate is the mean of.
const rateSeconds = 10

// rates count the changes of each service, and of all as that of "".
type rates map[string]*window

// window counts changes by second, in a ring.
type window struct {
	counts [rateSeconds]int
	latest int64 // the second of the newest count
}

func (r rates) add(service string, now time.Time) {
	w := r[service]
	if w == nil {
		w = new(window)
		r[service] = w
	}
	w.forget(now.Unix())
	w.counts[w.latest%rateSeconds]++
}

// perSecond returns a mean. A service that is at rest is forgotten.
func (r rates) perSecond(service string, now time.Time) float64 {
	w := r[service]
	if w == nil {
		return 0
	}
	w.forget(now.Unix())
	total := 0
	for _, n := range w.counts {
		total += n
	}
	if total == 0 {
		delete(r, service)
	}
	return float64(total) / rateSeconds
}

// forget drops the counts that are too old.
func (w *window) forget(second int64) {
	for ; w.latest < second-rateSeconds; w.latest = second - rateSeconds {
		w.counts = [rateSeconds]int{}
	}
	for w.latest < second {
		w.latest++
		w.counts[w.latest%rateSeconds] = 0
	}
}
