// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff(t *testing.T) {
	var b Backoff
	for range 2 {
		for i, step := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
			step *= time.Millisecond
			if i > 6 {
				step = Ceiling
			}
			if b.Failures() != i {
				t.Fatalf("%d failures, want %d", b.Failures(), i)
			}
			if d := b.Next(); d < step/2 || d > step {
				t.Fatalf("wait %d is %v, want between %v and %v", i, d, step/2, step)
			}
		}
		b.Reset()
	}
}

func TestAround(t *testing.T) {
	for range 1000 {
		if d := Around(time.Second); d < 750*time.Millisecond || d >= 1250*time.Millisecond {
			t.Fatal(d)
		}
	}
	if d := Around(Never); d != Never {
		t.Errorf("around never is %v", d)
	}
	if d := Jitter(-1); d != 0 {
		t.Errorf("jitter of nothing is %v", d)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := Sleep(t.Context(), time.Second, nil); err != nil || time.Since(began) != time.Second {
			t.Errorf("slept %v: %v", time.Since(began), err)
		}
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		if err := Sleep(t.Context(), time.Hour, wake); err != nil || time.Since(began) != time.Second {
			t.Errorf("woken after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Sleep(ctx, time.Hour, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slept past the context: %v", err)
		}
		if err := Sleep(ctx, 0, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no wait hides that the context has ended: %v", err)
		}
	})
}
