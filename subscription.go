// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/throttle"
)

const answerGrace = time.Second // how long a first snapshot may take before the wait is explained

// Subscription is one consumer's view of a feed. Its consumer may miss snapshots in
// between, never the last one. Not for use by several goroutines at once, but for
// Close, Latest, Err and Refresh.
type Subscription struct {
	feed    *feed
	changed chan struct{} // capacity 1
	done    chan struct{} // closed by Close, or by the Directory's

	// Owned by the consumer.
	got      *Snapshot // last returned by Next
	reported string    // last error returned by Next

	// Of Deliver.
	deliver func(*Snapshot, error)
	pace    throttle.Throttle // of what deliver takes
	ended   chan struct{}     // closed when the delivery that is due or under way has ended; guarded by feed.mu; nil: none
}

// Changed is woken, at least once, after Latest or Err have changed.
func (s *Subscription) Changed() <-chan struct{} { return s.changed }

// Latest returns the newest snapshot, nil before the first.
func (s *Subscription) Latest() *Snapshot {
	snap, _ := s.feed.latest()
	return snap
}

// Err says why there is no snapshot yet: nil once there is one, and for the first
// second, or while etcd's answer is arriving.
func (s *Subscription) Err() error {
	snap, err := s.feed.latest()
	if snap != nil || s.feed.recalls() {
		return nil // what was known before is about to be shown, and better than a reason
	}
	if err != nil {
		return err
	}
	if v, _ := s.feed.dir.link.current(); v.down != nil {
		return v.down.Cause
	}
	if s.feed.quiet() >= answerGrace {
		return fmt.Errorf("%w within %v", etcdkv.NoAnswer(s.feed.dir.client), answerGrace)
	}
	return nil
}

// Next waits for a snapshot that it has not returned yet and returns the newest, at once
// where there is one: it skips what came in between, but does not slow its caller down.
// Before the first it returns instead, once each, the reasons why there is none yet;
// call it again to go on waiting. It ends with the context's error, or with one that wraps
// ErrClosed, every time, once the subscription, its Directory or the etcd client was closed.
func (s *Subscription) Next(ctx context.Context) (*Snapshot, error) {
	for {
		snap := s.Latest()
		if snap != nil && snap != s.got {
			s.got = snap
			return snap, nil
		}
		var tick <-chan time.Time
		if s.got == nil {
			if err := s.Err(); s.unreported(err) {
				s.reported = err.Error()
				return nil, err
			}
			tick = time.After(answerGrace)
		}
		select {
		case <-s.changed:
		case <-tick:
		case <-s.done:
			return nil, s.feed.reason()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Deliver has f called with all that Next would return, one call at a time, until the
// subscription, its Directory or the etcd client is closed. It is called once, and Next no
// more after it. Where more than a few share a feed, a subscription takes no goroutine while
// there is nothing to deliver.
//
// A first change is delivered at once. Later ones are held back, and folded into one, where f
// takes more than a fifth of the time, for a second at most.
func (s *Subscription) Deliver(f func(*Snapshot, error)) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.deliver = f
	if s.newsLocked() || len(s.feed.subs) <= few {
		s.wakeLocked()
	}
}

// wakeLocked tells the consumer that there is news.
func (s *Subscription) wakeLocked() {
	notify(s.changed)
	if s.deliver == nil || s.ended != nil {
		return
	}
	s.ended = make(chan struct{})
	s.feed.due = append(s.feed.due, s)
	s.feed.spareLocked()
}

// spareLocked has a goroutine begin with the deliveries that are due, unless one is about to.
func (f *feed) spareLocked() {
	if len(f.due) > 0 && !f.spare {
		f.spare = true
		go f.deliverDue()
	}
}

// deliverDue begins deliveries one after the other. None waits for a slow one: while there
// are more, another goroutine is about to begin with them. Where none is slow there are
// hardly more goroutines than processors, and their stacks have grown already.
func (f *feed) deliverDue() {
	f.mu.Lock()
	f.spare = false
	for len(f.due) > 0 {
		s := f.due[0]
		if f.due[0], f.due = nil, f.due[1:]; len(f.due) == 0 {
			f.due = nil
		}
		f.spareLocked()
		ended := s.ended
		f.mu.Unlock()
		s.deliverAll(ended)
		f.mu.Lock()
	}
	f.mu.Unlock()
}

// deliverAll delivers until there is nothing left, or nothing more to come.
func (s *Subscription) deliverAll(ended chan<- struct{}) {
	defer close(ended)
	for !s.rest() {
		_ = backoff.Sleep(context.Background(), time.Until(s.pace.Rested()), s.done)
		snap, err := s.Next(context.Background())
		if s.isClosed() {
			return
		}
		began := time.Now()
		s.deliver(snap, err)
		s.pace.Worked(began, time.Now())
	}
}

// few subscriptions of a feed keep their goroutines: one that has run before is some 10 us
// faster than a new one, whose stack has to grow first.
const few = 4

// rest ends the delivery if there is nothing that Next would return.
func (s *Subscription) rest() bool {
	if s.got == nil && s.unreported(s.Err()) {
		return false
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.newsLocked() || len(s.feed.subs) <= few {
		return false
	}
	s.ended = nil
	return true
}

// newsLocked says whether something was published that Next has not returned.
func (s *Subscription) newsLocked() bool {
	return s.got != s.feed.snap || s.got == nil && s.unreported(s.feed.err)
}

func (s *Subscription) unreported(err error) bool { return err != nil && err.Error() != s.reported }

func (s *Subscription) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Refresh has the feed compare itself with etcd, soon and at most once in 10 s: a
// hint that something looks out of date.
func (s *Subscription) Refresh() { s.feed.refresh() }

// deliveryGrace bounds how long Close waits for a delivery that does not end.
const deliveryGrace = 50 * time.Millisecond

// await waits for deliveries to end, for deliveryGrace at most.
func await(deliveries []<-chan struct{}) {
	grace := time.After(deliveryGrace)
	for _, ended := range deliveries {
		select {
		case <-ended:
		case <-grace:
			return
		}
	}
}

// Close ends the subscription; the last one of a feed ends its watch and joins it.
// What Deliver calls is waited for, but not for more than 50 ms, not even by itself: it ends
// on its own then.
// Calling it again does nothing.
func (s *Subscription) Close() {
	last, ended := s.feed.unsubscribe(s)
	if ended != nil {
		await([]<-chan struct{}{ended})
	}
	if last {
		s.feed.dir.release(s.feed)
	}
}
