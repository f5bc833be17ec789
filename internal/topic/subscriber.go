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

// deliverAll delivers until there is nothing left, or nothing more to come.
func (s *Subscriber[T]) deliverAll(ended chan<- struct{}) {
	defer close(ended)
	for !s.park() {
		_ = backoff.Sleep(context.Background(), time.Until(s.throttle.Rested()), s.done)
		value, err, open := s.news()
		if !open {
			return
		}
		began := time.Now()
		s.deliver(value, err)
		s.throttle.Worked(began, time.Now())
	}
}

// news waits for a value, or for a reason why there is none, that was not delivered yet. It
// reports false once the subscriber or its topic is closed.
func (s *Subscriber[T]) news() (value *T, err error, open bool) {
	for {
		select {
		case <-s.done:
			return nil, nil, false
		default:
		}
		if value = s.topic.Latest(); value != nil && value != s.got {
			s.got = value
			return value, nil, true
		}
		if s.got == nil {
			if err = s.topic.Why(); s.undelivered(err) {
				s.reported = err.Error()
				return nil, err, true
			}
		}
		select {
		case <-s.changed:
		case <-s.done:
		}
	}
}

// park ends the delivery if there is nothing to deliver.
func (s *Subscriber[T]) park() bool {
	if s.got == nil && s.undelivered(s.topic.Why()) {
		return false
	}
	s.topic.mu.Lock()
	defer s.topic.mu.Unlock()
	if s.newsLocked() || len(s.topic.subscribers) <= residents {
		return false
	}
	s.ended = nil
	return true
}

// newsLocked reports whether something was published that was not delivered.
func (s *Subscriber[T]) newsLocked() bool {
	return s.got != s.topic.value || s.got == nil && s.undelivered(s.topic.err)
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
