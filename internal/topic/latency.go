// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of a Latency's buckets; one more is for what takes longer.
var Bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Latency is a histogram of how long changes took from their receipt to a subscriber. The nil
// Latency records none.
type Latency struct {
	counts [len(Bounds) + 1]atomic.Uint64
	sum    atomic.Int64
}

func (l *Latency) observe(took time.Duration) {
	if l == nil {
		return
	}
	i := 0
	for i < len(Bounds) && took > Bounds[i] {
		i++
	}
	l.counts[i].Add(1)
	l.sum.Add(int64(took))
}

// Load returns how many changes were in each bucket alone, and how long all took together.
func (l *Latency) Load() (counts [len(Bounds) + 1]uint64, sum time.Duration) {
	for i := range counts {
		counts[i] = l.counts[i].Load()
	}
	return counts, time.Duration(l.sum.Load())
}

// lag is when the oldest change was received that a subscriber has not been given. Guarded by
// the topic's mu.
type lag struct{ since time.Time }

func (l *lag) noteLocked(received time.Time) {
	if l.since.IsZero() {
		l.since = received
	}
}

// endLocked records that the subscriber is given everything.
func (l *lag) endLocked(latency *Latency) {
	if !l.since.IsZero() {
		latency.observe(time.Since(l.since))
		l.since = time.Time{}
	}
}
