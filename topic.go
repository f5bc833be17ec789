// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/throttle"
)

const (
	// answerTimeout is how long a first value may take before subscribers are told why.
	answerTimeout = time.Second
	// deliveryGrace bounds how long Close waits for a delivery that does not end.
	deliveryGrace = 50 * time.Millisecond
	// residents is up to how many subscribers of a topic keep their goroutines: one that has
	// run before is some 10 us faster than a new one, whose stack has to grow first.
	// BenchmarkDelivery has what that saves.
	residents = 4
)

// topic is the latest value of something, and those who are told of it.
type topic[T any] struct {
	// reason returns why there is no value yet, where publisher has said nothing; set once.
	reason func() error
	// observer is woken with the subscribers, and is none of them; nil: there is none; set once.
	observer chan struct{}

	mu          sync.Mutex
	subscribers map[*subscriber[T]]struct{}
	closed      error            // why there will be no other value; nil while there may be
	value       *T               // nil before the first
	err         error            // why there is none
	fallback    *T               // a value of before, shown if nothing better comes in time; nil: none
	searching   bool             // a fallback may yet be found
	due         []*subscriber[T] // deliveries to be begun
	starting    bool             // a goroutine is about to begin with them
}

// publish sets the value and wakes subscribers. One that is confirmed ends the need for a
// fallback.
func (t *topic[T]) publish(value *T, confirmed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.value, t.err = value, nil
	if confirmed {
		t.fallback = nil
	}
	t.wakeLocked()
}

// fail says why there is no value yet.
func (t *topic[T]) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == nil {
		t.err = err
		t.wakeLocked()
	}
}

func (t *topic[T]) latest() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value
}

// known returns the value, or else the fallback; nil where there is neither.
func (t *topic[T]) known() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.value, t.fallback)
}

// unconfirmed returns the fallback, shown or not, while there is nothing better.
func (t *topic[T]) unconfirmed() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fallback
}

// setFallback gives the topic a fallback, unless there is a value, and reports whether it did.
func (t *topic[T]) setFallback(value *T) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value != nil {
		return false
	}
	t.fallback = value
	return true
}

// showFallback publishes the fallback where there is nothing better.
func (t *topic[T]) showFallback() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == nil && t.fallback != nil {
		t.value, t.err = t.fallback, nil
		t.wakeLocked()
	}
}

// searched notes that no other fallback will be found.
func (t *topic[T]) searched() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.searching {
		t.searching = false
		t.wakeLocked()
	}
}

// why returns why there is no value: nil once there is one, and while a fallback, which is
// better than a reason, is about to be shown.
func (t *topic[T]) why() error {
	t.mu.Lock()
	hopeful, err := t.value != nil || t.searching || t.fallback != nil, t.err
	t.mu.Unlock()
	switch {
	case hopeful:
		return nil
	case err != nil:
		return err
	}
	return t.reason()
}

// remindLater has subscribers look from time to time why there is no value, until there is
// one or nobody subscribes.
func (t *topic[T]) remindLater() {
	time.AfterFunc(answerTimeout, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.value == nil && t.closed == nil && len(t.subscribers) > 0 {
			t.wakeLocked()
			t.remindLater()
		}
	})
}

// subscribe adds a subscriber, which is woken through changed and, unless that is nil, has
// deliver called.
func (t *topic[T]) subscribe(changed chan struct{}, deliver func(*T, error)) *subscriber[T] {
	s := &subscriber[T]{topic: t, changed: changed, done: make(chan struct{}), deliver: deliver}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subscribers == nil {
		t.subscribers = make(map[*subscriber[T]]struct{})
	}
	t.subscribers[s] = struct{}{}
	if t.closed != nil {
		close(s.done)
	}
	switch {
	case deliver == nil:
		notify(changed) // what is there already is news to this one
	case s.newsLocked() || len(t.subscribers) <= residents:
		s.wakeLocked()
	}
	return s
}

// unsubscribe reports whether s was the last, and returns what closes when its delivery
// under way has ended, nil where there is none.
func (t *topic[T]) unsubscribe(s *subscriber[T]) (last bool, ended <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.subscribers[s]; ok {
		delete(t.subscribers, s)
		if t.closed == nil {
			close(s.done)
		}
	}
	return len(t.subscribers) == 0, s.ended
}

// count returns the number of subscribers.
func (t *topic[T]) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.subscribers)
}

// close ends every subscription for a reason, and returns what closes when the deliveries
// under way have ended.
func (t *topic[T]) close(reason error) (ended []<-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.subscribers {
		if t.closed == nil {
			close(s.done)
		}
		if s.ended != nil {
			ended = append(ended, s.ended)
		}
	}
	t.closed = cmp.Or(t.closed, reason)
	return ended
}

// closedReason returns why a subscription that is closed gets no other value.
func (t *topic[T]) closedReason() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.closed, ErrClosed)
}

func (t *topic[T]) wakeLocked() {
	if t.observer != nil {
		notify(t.observer)
	}
	for s := range t.subscribers {
		s.wakeLocked()
	}
}

// startLocked has a goroutine begin with the deliveries that are due, unless one is about to.
func (t *topic[T]) startLocked() {
	if len(t.due) > 0 && !t.starting {
		t.starting = true
		go t.deliverDue()
	}
}

// deliverDue begins deliveries one after the other. None waits for a slow one: while there
// are more, another goroutine is about to begin with them. Where none is slow there are
// hardly more goroutines than processors, and their stacks have grown already.
// BenchmarkDelivery has what that saves.
func (t *topic[T]) deliverDue() {
	t.mu.Lock()
	t.starting = false
	for len(t.due) > 0 {
		s := t.due[0]
		if t.due[0], t.due = nil, t.due[1:]; len(t.due) == 0 {
			t.due = nil
		}
		t.startLocked()
		ended := s.ended
		t.mu.Unlock()
		s.deliverAll(ended)
		t.mu.Lock()
	}
	t.mu.Unlock()
}

// subscriber is one consumer of a topic. It may miss values in between, never the last one.
type subscriber[T any] struct {
	topic   *topic[T]
	changed chan struct{} // capacity 1
	done    chan struct{} // closed when there will be no other value

	// Owned by the consumer.
	got      *T                // last value returned or delivered
	reported string            // last error delivered
	deliver  func(*T, error)   // nil: the consumer calls next
	throttle throttle.Throttle // of what deliver takes

	ended chan struct{} // closed when the delivery that is due or under way has ended; nil: none; guarded by topic.mu
}

// next waits for a value that it has not returned yet and returns the newest.
func (s *subscriber[T]) next(ctx context.Context) (*T, error) {
	for {
		if value := s.topic.latest(); value != nil && value != s.got {
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

// wakeLocked tells the consumer that there is news.
func (s *subscriber[T]) wakeLocked() {
	notify(s.changed)
	if s.deliver == nil || s.ended != nil {
		return
	}
	s.ended = make(chan struct{})
	s.topic.due = append(s.topic.due, s)
	s.topic.startLocked()
}

// deliverAll delivers until there is nothing left, or nothing more to come.
func (s *subscriber[T]) deliverAll(ended chan<- struct{}) {
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
func (s *subscriber[T]) news() (value *T, err error, open bool) {
	for {
		select {
		case <-s.done:
			return nil, nil, false
		default:
		}
		if value = s.topic.latest(); value != nil && value != s.got {
			s.got = value
			return value, nil, true
		}
		if s.got == nil {
			if err = s.topic.why(); s.undelivered(err) {
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
func (s *subscriber[T]) park() bool {
	if s.got == nil && s.undelivered(s.topic.why()) {
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
func (s *subscriber[T]) newsLocked() bool {
	return s.got != s.topic.value || s.got == nil && s.undelivered(s.topic.err)
}

func (s *subscriber[T]) undelivered(err error) bool { return err != nil && err.Error() != s.reported }

// close ends the subscriber and waits for 50 ms at most for a delivery under way. It reports
// whether it was the topic's last.
func (s *subscriber[T]) close() (last bool) {
	last, ended := s.topic.unsubscribe(s)
	if ended != nil {
		await([]<-chan struct{}{ended})
	}
	return last
}

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

// notify wakes the reader of a channel of capacity one.
func notify(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
