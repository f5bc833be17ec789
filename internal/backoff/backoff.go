// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package backoff spaces retries, and waits.
package backoff

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

const (
	floor = 100 * time.Millisecond
	// Ceiling is the longest wait between two tries.
	Ceiling = 5 * time.Second
	// Never is longer than any wait.
	Never = math.MaxInt64 / 4 * time.Nanosecond
)

// Backoff spaces retries: jittered, doubling from 100 ms to Ceiling. The zero value is
// ready to use.
type Backoff struct{ failures int }

// Reset notes a success.
func (b *Backoff) Reset() { b.failures = 0 }

// Failures returns how often Next was called since the last success.
func (b *Backoff) Failures() int { return b.failures }

// Next notes a failure and returns the wait before the next try, between half and all of
// the step.
func (b *Backoff) Next() time.Duration {
	step := Ceiling
	if b.failures < 6 {
		step = min(floor<<b.failures, Ceiling)
	}
	b.failures++
	return step/2 + Jitter(step/2)
}

// Jitter returns a random duration in [0, limit).
func Jitter(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return rand.N(limit)
}

// Around returns a random duration between 75 % and 125 % of d; Never stays Never.
func Around(d time.Duration) time.Duration {
	if d >= Never {
		return Never
	}
	return d*3/4 + Jitter(d/2)
}

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Sleep waits for d, for wake, or for the context, whose error it returns.
func Sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	if d <= 0 {
		return ctx.Err()
	}
	var elapsed <-chan time.Time
	if d < Never {
		timer := time.NewTimer(d)
		defer timer.Stop()
		elapsed = timer.C
	}
	select {
	case <-elapsed:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// Wake wakes who sleeps on a channel of capacity one, or will.
func Wake(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Renew closes a channel, which wakes all who wait for that, and puts another one in its place.
func Renew(c *chan struct{}) {
	close(*c)
	*c = make(chan struct{})
}
