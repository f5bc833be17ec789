// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"context"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/throttle"
)

// Subscriber is one consumer of a topic. It may miss values in between, never the last one.
type Subscriber[T any] struct {
	topic   *Topic[T]
	changed chan struct{} // capacity 1
	done    chan struct{} // closed when there will be no other value

	// Owned by the consumer.
	got      *T                // last value returned or delivered
	seen     int               // topic.changes when it was
	reported string            // last error delivered
	deliver  func(*T, error)   // nil: the consumer calls next
	throttle throttle.Throttle // of what deliver takes

	ended chan struct{} // closed when the delivery that is due or under way has ended; nil: none; guarded by topic.mu
}

// Next waits for a value that it has not returned yet and returns the newest.
func (s *Subscriber[T]) Next(ctx context.Context) (*T, error) {
	for {
		if value := s.topic.Latest(); value != nil && value != s.got {
			s.got = value
			return value, nil
		}
		select {
		case <-s.changed:
		case <-s.done:
			return nil, s.topic.closedReason()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Changed is woken, at least once, when the value or the reason for none has changed.
func (s *Subscriber[T]) Changed() <-chan struct{} { return s.changed }

// Done is closed when there will be no other value.
func (s *Subscriber[T]) Done() <-chan struct{} { return s.done }

// wakeLocked tells the consumer that there is news.
func (s *Subscriber[T]) wakeLocked() {
	backoff.Wake(s.changed)
	if s.deliver == nil || s.ended != nil {
		return
	}
	s.ended = make(chan struct{})
	s.topic.due = append(s.topic.due, s)
	s.topic.startLocked()
}

// deliverAll delivers what is due until there is nothing left, or nothing more to come.
func (s *Subscriber[T]) deliverAll(ended chan<- struct{}) {
	defer close(ended)
	for {
		select {
		case <-s.done:
			return
		case <-s.changed: // what follows takes it in
		default:
		}
		wait, more := s.next(s.topic.Why())
		switch {
		case !more:
			return
		case wait > 0:
			_ = backoff.Sleep(context.Background(), wait, s.done)
		}
	}
}

// next delivers the value, or else why there is none, if that is due. It returns how long it
// is until then, and reports false, and the delivery is over, if there is no news.
func (s *Subscriber[T]) next(why error) (wait time.Duration, more bool) {
	t := s.topic
	t.mu.Lock()
	value, changes := t.value, t.changes-s.seen
	switch {
	case value != s.got:
		why = nil
		wait = time.Until(s.throttle.Due(changes, t.changedAt))
	case value != nil || !s.undelivered(why):
		if more = len(s.changed) > 0; !more {
			s.ended = nil
		}
		t.mu.Unlock()
		return 0, more
	default:
		s.reported = why.Error()
	}
	if wait <= 0 {
		s.got, s.seen = value, t.changes
	}
	t.mu.Unlock()
	if wait <= 0 {
		began := time.Now()
		s.deliver(value, why)
		s.throttle.Worked(changes, time.Now(), time.Since(began))
	}
	return wait, true
}

func (s *Subscriber[T]) undelivered(err error) bool { return err != nil && err.Error() != s.reported }

// Close ends the subscriber and waits for 50 ms at most for a delivery under way. It reports
// whether it was the topic's last.
func (s *Subscriber[T]) Close() (last bool) {
	last, ended := s.topic.unsubscribe(s)
	if ended != nil {
		Await([]<-chan struct{}{ended})
	}
	return last
}

// Await waits for deliveries to end, for deliveryGrace at most.
func Await(deliveries []<-chan struct{}) {
	grace := time.After(deliveryGrace)
	for _, ended := range deliveries {
		select {
		case <-ended:
		case <-grace:
			return
		}
	}
}
