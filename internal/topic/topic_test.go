// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errSilent = errors.New("no answer")

func newTopic(opts Options[int]) *Topic[int] {
	if opts.Reason == nil {
		opts.Reason = func() error { return nil }
	}
	return New(opts)
}

func value(n int) *int { return &n }

func TestNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newTopic(Options[int]{})
		s := topic.Subscribe(make(chan struct{}, 1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("next without a value: %v", err)
		}
		topic.Publish(value(1), true)
		topic.Publish(value(2), true)
		if got, err := s.Next(t.Context()); err != nil || *got != 2 {
			t.Errorf("got %v, %v, want the last value", got, err)
		}
		time.AfterFunc(time.Second, func() { topic.Publish(value(3), true) })
		if got, err := s.Next(t.Context()); err != nil || *got != 3 {
			t.Errorf("got %v, %v, want 3", got, err)
		}
		if last := s.Close(); !last || topic.Count() != 0 {
			t.Errorf("%d subscribers after Close", topic.Count())
		}
		if _, err := s.Next(t.Context()); !errors.Is(err, etcdkv.ErrClosed) {
			t.Errorf("next after Close: %v", err)
		}
		reason := errors.New("reason")
		s = topic.Subscribe(make(chan struct{}, 1))
		topic.Close(reason)
		late := topic.Subscribe(make(chan struct{}, 1))
		for _, s := range []*Subscriber[int]{s, late} {
			if got, err := s.Next(t.Context()); err != nil || *got != 3 {
				t.Errorf("got %v, %v, want what there is", got, err)
			}
			if _, err := s.Next(t.Context()); !errors.Is(err, reason) {
				t.Errorf("next after the topic's Close: %v", err)
			}
		}
	})
}

// A reason is told where there is no value and no fallback, which is better than a reason.
func TestWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newTopic(Options[int]{Searching: true, Reason: func() error { return errSilent }})
		steps := []struct {
			name string
			do   func()
			why  error
			show int
		}{
			{"searching", func() {}, nil, 0},
			{"failed while searching", func() { topic.Fail(errors.ErrUnsupported) }, nil, 0},
			{"searched", topic.Searched, errors.ErrUnsupported, 0},
			{"found", func() { topic.SetFallback(value(1)) }, nil, 0},
			{"shown", topic.ShowFallback, nil, 1},
			{"confirmed", func() { topic.Publish(value(2), true) }, nil, 2},
			{"too late", func() { topic.SetFallback(value(3)); topic.ShowFallback() }, nil, 2},
			{"failed later", func() { topic.Fail(errSilent) }, nil, 2},
		}
		for _, step := range steps {
			step.do()
			if got := topic.Why(); got != step.why {
				t.Errorf("%s: reason %v, want %v", step.name, got, step.why)
			}
			if got := topic.Latest(); (got == nil) != (step.show == 0) || got != nil && *got != step.show {
				t.Errorf("%s: shows %v, want %d", step.name, got, step.show)
			}
		}
		if topic.Unconfirmed() != nil {
			t.Error("there is a fallback beside a confirmed value")
		}
		if silent := newTopic(Options[int]{Reason: func() error { return errSilent }}); silent.Why() != errSilent {
			t.Errorf("reason %v", silent.Why())
		}
	})
}

// recorder is a function that values are delivered to.
type recorder struct {
	mu   sync.Mutex
	told []string
	work time.Duration
}

func (r *recorder) deliver(v *int, err error) {
	time.Sleep(r.work)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.told = append(r.told, err.Error())
	} else {
		r.told = append(r.told, fmt.Sprint(*v))
	}
}

func (r *recorder) want(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.told, want) {
		t.Errorf("told %q, want %q", r.told, want)
	}
}

// Few subscribers and many are told the same: each reason once, then every value that lasts.
func TestDelivery(t *testing.T) {
	for _, n := range []int{1, 2, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				topic := newTopic(Options[int]{Reason: func() error { return errSilent }})
				recorders := make([]recorder, n)
				subs := make([]*Delivery[int], n)
				for i := range recorders {
					subs[i] = topic.Deliver(recorders[i].deliver)
				}
				topic.RemindLater()
				time.Sleep(5 * time.Second)
				topic.Publish(value(1), true)
				time.Sleep(time.Second)
				topic.Publish(value(2), true)
				topic.Publish(value(3), true)
				time.Sleep(time.Second)
				for i, s := range subs {
					if last := s.Close(); last != (i == n-1) {
						t.Errorf("subscriber %d was the last: %v", i, last)
					}
				}
				topic.Publish(value(4), true)
				synctest.Wait()
				for i := range recorders {
					told := recorders[i].told
					if len(told) == 4 && told[2] == "2" { // it was quick
						recorders[i].told = slices.Delete(told, 2, 3)
					}
					recorders[i].want(t, errSilent.Error(), "1", "3")
				}
			})
		})
	}
}

// A function that takes long is called less often, and is always told the last value.
func TestSlowDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newTopic(Options[int]{})
		slow := &recorder{work: 400 * time.Millisecond}
		s := topic.Deliver(slow.deliver)
		for i := range 1000 {
			topic.Publish(value(i), true)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		s.Close()
		if n := len(slow.told); n > 12 || slow.told[n-1] != "999" {
			t.Errorf("told %q, want a fifth of 10 s, and the last", slow.told)
		}
	})
}

// Who comes late is told at once: of the value, which is one change to it, and of a reason.
func TestLateDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newTopic(Options[int]{Reason: func() error { return errSilent }})
		topic.RemindLater()
		time.Sleep(AnswerTimeout + 100*time.Millisecond)
		late := &recorder{}
		defer topic.Deliver(late.deliver).Close()
		synctest.Wait()
		late.want(t, errSilent.Error())
		for i := range 1000 {
			topic.Publish(value(i), true)
			time.Sleep(time.Second)
		}
		later := &recorder{work: time.Millisecond}
		defer topic.Deliver(later.deliver).Close()
		time.Sleep(3 * time.Millisecond)
		topic.Publish(value(1000), true)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		later.want(t, "999", "1000")
	})
}

// A reason that changes while one is delivered is delivered as well.
func TestReasonChangesDuringDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newTopic(Options[int]{})
		r := &recorder{work: time.Second}
		defer topic.Deliver(r.deliver).Close()
		topic.Fail(errSilent)
		time.Sleep(500 * time.Millisecond)
		topic.Fail(errors.ErrUnsupported)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.want(t, errSilent.Error(), errors.ErrUnsupported.Error())
	})
}

// Close waits for a delivery under way, but not for one that does not end.
func TestCloseDuringDelivery(t *testing.T) {
	for _, work := range []time.Duration{deliveryGrace / 2, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			topic := newTopic(Options[int]{})
			var under atomic.Bool
			s := topic.Deliver(func(*int, error) {
				under.Store(true)
				defer under.Store(false)
				time.Sleep(work)
			})
			topic.Publish(value(1), true)
			synctest.Wait()
			began := time.Now()
			s.Close()
			if took := time.Since(began); took > deliveryGrace || under.Load() != (work > deliveryGrace) {
				t.Errorf("work of %v: closed after %v, under way: %v", work, took, under.Load())
			}
			time.Sleep(work)
		})
	}
}

// BenchmarkDelivery is the time from a publication to the last of n subscribers.
func BenchmarkDelivery(b *testing.B) {
	for _, n := range []int{1, 4, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			topic := newTopic(Options[int]{})
			var told sync.WaitGroup
			for range n {
				s := topic.Deliver(func(*int, error) { told.Done() })
				defer s.Close()
			}
			for b.Loop() {
				told.Add(n)
				topic.Publish(value(1), true)
				told.Wait()
			}
		})
	}
}
