// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// applicants is many lists that ask for their turn.
type applicants struct {
	*limiter
	ctx     context.Context
	entered chan struct{}
}

func newApplicants(ctx context.Context, l *limiter, n int) *applicants {
	c := &applicants{limiter: l, ctx: ctx, entered: make(chan struct{}, n)}
	for range n {
		go func() {
			if entered, _ := l.enter(ctx, nil, l.reserve(nil)); entered {
				c.entered <- struct{}{}
			}
		}()
	}
	synctest.Wait()
	return c
}

func (c *applicants) want(t *testing.T, n int) {
	t.Helper()
	synctest.Wait()
	if got := len(c.entered); got != n {
		t.Errorf("%d have had their turn, want %d", got, n)
	}
}

func TestLimiter(t *testing.T) {
	errBroken := errors.New("broken")
	for _, row := range []struct {
		name     string
		password bool
		steps    func(t *testing.T, c *applicants)
	}{
		{"sixteen without a password", false, func(t *testing.T, c *applicants) {
			c.want(t, 16)
			c.leave(c.ctx, nil)
			c.want(t, 17)
		}},
		{"one with a password", true, func(t *testing.T, c *applicants) {
			c.want(t, 1)
			c.leave(c.ctx, nil)
			c.want(t, 2) // one has left: one is under way
		}},
		{"doubles with every answer", true, func(t *testing.T, c *applicants) {
			for _, n := range []int{2, 4, 8, 16, 16} {
				c.answer()
				c.want(t, n)
			}
		}},
		{"one after a failure", false, func(t *testing.T, c *applicants) {
			c.leave(c.ctx, errBroken)
			c.want(t, 16)
			for range 14 {
				c.leave(c.ctx, nil)
			}
			c.want(t, 16) // one is under way
			c.leave(c.ctx, nil)
			c.want(t, 17)
			c.answer()
			c.want(t, 18)
		}},
		{"a refusal is an answer", true, func(t *testing.T, c *applicants) {
			c.leave(c.ctx, rpctypes.ErrPermissionDenied)
			c.want(t, 3)
		}},
		{"a cancelled list is no failure", false, func(t *testing.T, c *applicants) {
			ctx, cancel := context.WithCancel(c.ctx)
			cancel()
			c.leave(ctx, context.Canceled)
			c.want(t, 17)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				row.steps(t, newApplicants(ctx, newLimiter(row.password), 40))
			})
		})
	}
}

// A client with a password begins alone again after 10 s without an answer; one without
// does not.
func TestLimiterAfterSilence(t *testing.T) {
	for _, row := range []struct {
		password bool
		silence  time.Duration
		want     int
	}{{true, 11 * time.Second, 1}, {true, 9 * time.Second, 16}, {false, 11 * time.Second, 16}} {
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(row.password)
			if entered, err := l.enter(t.Context(), nil, l.reserve(nil)); !entered || err != nil {
				t.Fatal(entered, err)
			}
			for range 5 {
				l.answer()
			}
			l.leave(t.Context(), nil)
			time.Sleep(row.silence)
			if got := l.silence(); got != row.silence {
				t.Errorf("silence of %v, want %v", got, row.silence)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			newApplicants(ctx, l, 40).want(t, row.want)
		})
	}
}

// Who gives up waiting takes nobody's turn.
func TestLimiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(true)
		if entered, err := l.enter(t.Context(), nil, l.reserve(nil)); !entered || err != nil {
			t.Fatal(entered, err)
		}
		until := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(until) })
		turn := l.reserve(nil)
		if entered, err := l.enter(t.Context(), until, turn); entered || err != nil {
			t.Errorf("until was closed: %v, %v", entered, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if entered, err := l.enter(ctx, nil, turn); entered || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context ended: %v, %v", entered, err)
		}
		l.leave(t.Context(), nil)
		if entered, err := l.enter(t.Context(), nil, l.reserve(nil)); !entered || err != nil || l.active != 1 {
			t.Errorf("afterwards: %v, %v, %d under way", entered, err, l.active)
		}
	})
}

// A turn that is withdrawn is nobody's any more, whether it had come or not; and one that was only
// reserved waits for who has reserved it.
func TestLimiterReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(true)
		first, second := l.reserve(nil), l.reserve(nil)
		if entered, err := l.enter(t.Context(), nil, second); !entered || err != nil {
			t.Fatalf("behind one that was only reserved: %v, %v", entered, err)
		}
		l.withdraw(second)
		l.withdraw(first)
		l.withdraw(nil)
		if l.active != 0 || len(l.queue) != 0 {
			t.Errorf("%d under way and %d in the queue", l.active, len(l.queue))
		}
	})
}

// A turn that comes takes others along, up to a bound, and lets go of them if it is given up.
func TestLimiterTakesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(true)
		keys := etcdkv.Prefix("p/")
		turns := []*turn{l.reserve(&keys), l.reserve(nil), l.reserve(&keys), l.reserve(&keys), l.reserve(&keys)}
		l.limitBatch(6)
		first := turns[0]
		if entered, err := l.enter(t.Context(), nil, first); !entered || err != nil || !slices.Equal(first.others, turns[2:4]) {
			t.Fatalf("%v, %v, with %d others, want the next two", entered, err, len(first.others))
		}
		l.withdraw(first)
		if entered, err := l.enter(t.Context(), nil, turns[2]); !entered || err != nil || turns[2].admitted {
			t.Errorf("one that was let go of: %v, %v, admitted: %v", entered, err, turns[2].admitted)
		}
	})
}

// Nobody is admitted while the limiter is held, and all are afterwards.
func TestLimiterHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(false)
		l.hold()
		l.hold()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := newApplicants(ctx, l, 3)
		l.release()
		c.want(t, 0)
		l.release()
		c.want(t, 3)
	})
}
