// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"container/list"
	"context"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// Subscriber asks for the values of a topic. It may miss values in between, never the last one.
type Subscriber[T any] struct {
	topic   *Topic[T]
	element *list.Element
	changed chan struct{} // capacity 1
	done    chan struct{} // closed when there will be no other value; by closeLocked
	got     *T            // last value returned; owned by Next
	lag
}

// Subscribe adds a subscriber, which is woken through changed, of capacity one.
func (t *Topic[T]) Subscribe(changed chan struct{}) *Subscriber[T] {
	s := &Subscriber[T]{topic: t, changed: changed, done: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.element = t.subscribers.PushBack(s)
	if t.closed != nil {
		s.closeLocked()
	}
	s.wakeLocked(time.Time{}) // what is there already is news to this one
	return s
}

func (s *Subscriber[T]) closeLocked() { close(s.done) }
func (s *Subscriber[T]) wakeLocked(received time.Time) {
	s.noteLocked(received)
	backoff.Wake(s.changed)
}

// Next waits for a value that it has not returned yet and returns the newest.
func (s *Subscriber[T]) Next(ctx context.Context) (*T, error) {
	for {
		if value := s.take(); value != nil {
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

// take returns the newest value if Next has not returned it yet, else nil.
func (s *Subscriber[T]) take() *T {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == s.got {
		return nil
	}
	s.got = t.value
	s.endLocked(t.latency)
	return s.got
}

// Changed is woken, at least once, when the value or the reason for none has changed.
func (s *Subscriber[T]) Changed() <-chan struct{} { return s.changed }

// Done is closed when there will be no other value.
func (s *Subscriber[T]) Done() <-chan struct{} { return s.done }

// Close ends the subscription. It reports whether that was the topic's last subscriber.
func (s *Subscriber[T]) Close() (last bool) { return s.topic.unsubscribe(s.element) }
