// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

const (
	callTimeout  = 5 * time.Second // every call to etcd
	retryFloor   = 100 * time.Millisecond
	retryCeiling = 5 * time.Second
	never        = math.MaxInt64 / 4 * time.Nanosecond // no wait is as long
)

// backoff spaces retries: jittered, doubling from retryFloor to retryCeiling.
type backoff struct{ failures int }

func (b *backoff) reset() { b.failures = 0 }

// next returns the wait before the next try, between half and all of the step.
func (b *backoff) next() time.Duration {
	step := retryCeiling
	if b.failures < 6 {
		step = min(retryFloor<<b.failures, retryCeiling)
	}
	b.failures++
	return step/2 + jitter(step/2)
}

// jitter returns a random duration in [0, most).
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

// sleep waits for d, for wake, or for the context, whose error it returns.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err()
}
