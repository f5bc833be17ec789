// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package topic tells subscribers of the latest value of something. A subscriber may miss
// values in between, never the last one.
//
// # Concurrency
//
// All methods may be called from any goroutine, but Next from one at a time. Values are shared
// and must not be changed. Functions that values are delivered to are called without a lock.
package topic

import (
	"cmp"
	"container/list"
	"iter"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	// AnswerTimeout is how long a first value may take before subscribers are told why.
	AnswerTimeout = time.Second
	// deliveryGrace bounds how long Close waits for a delivery that does not end.
	deliveryGrace = 50 * time.Millisecond
)

// Topic is the latest value of something.
type Topic[T any] struct {
	reason   func() error  // Options.Reason
	observer chan struct{} // Options.Observer
	latency  *Latency      // Options.Latency

	mu          sync.Mutex
	subscribers list.List      // of subscribers
	closed      error          // why there will be no other value; nil while there may be
	value       *T             // nil before the first
	changes     int            // how often value was set
	changedAt   time.Time      // when it last was
	err         error          // why there is none
	fallback    *T             // Options.Fallback or SetFallback's; nil once a value is confirmed
	searching   bool           // SetFallback may yet be called
	overdue     bool           // there was no value for AnswerTimeout
	reminder    *time.Timer    // of RemindLater; nil once there is a value
	due         []*Delivery[T] // to be begun
	starting    bool           // a goroutine is about to begin with them
}

// subscriber is a Subscriber or a Delivery.
type subscriber interface {
	wakeLocked(received time.Time) // there is news, of a change that was received then; zero: of none
	closeLocked()                  // there will be no more; called once
}

// Options are the settings of a Topic.
type Options[T any] struct {
	// Reason returns why there is no value yet, if Fail was not called. Required.
	Reason func() error
	// Fallback is an earlier value, for ShowFallback. Default: none.
	Fallback *T
	// Searching is set while SetFallback may yet be called, until Searched.
	Searching bool
	// Observer, of capacity one, is woken with the subscribers, and is none of them; nil: none.
	Observer chan struct{}
	// Latency records how long changes take from their receipt to each subscriber; nil: nothing does.
	Latency *Latency
}

// New returns a Topic without a value.
func New[T any](opts Options[T]) *Topic[T] {
	return &Topic[T]{reason: opts.Reason, observer: opts.Observer, latency: opts.Latency, fallback: opts.Fallback, searching: opts.Searching}
}

// Observer returns Options.Observer.
func (t *Topic[T]) Observer() chan struct{} { return t.observer }

// Publish sets the value and wakes subscribers. One that is confirmed ends the need for a
// fallback.
func (t *Topic[T]) Publish(value *T, confirmed bool) { t.PublishChange(value, confirmed, time.Time{}) }

// PublishChange publishes what a change has made, the oldest of those in the value: it was
// received then.
func (t *Topic[T]) PublishChange(value *T, confirmed bool, received time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if confirmed {
		t.fallback = nil
	}
	t.setLocked(value, received)
}

func (t *Topic[T]) setLocked(value *T, received time.Time) {
	if t.reminder != nil {
		t.reminder.Stop()
		t.reminder = nil
	}
	t.value, t.err, t.changedAt = value, nil, time.Now()
	t.changes++
	t.wakeLocked(received)
}

// Fail sets the reason why there is no value yet.
func (t *Topic[T]) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == nil {
		t.err = err
		t.wakeLocked(time.Time{})
	}
}

// Latest returns the value, nil before the first.
func (t *Topic[T]) Latest() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value
}

// Known returns the value, or else the fallback; nil where there is neither.
func (t *Topic[T]) Known() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.value, t.fallback)
}

// Unconfirmed returns the fallback, shown or not, while there is nothing better.
func (t *Topic[T]) Unconfirmed() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fallback
}

// SetFallback gives the topic a fallback, unless there is a value, and reports whether it did.
func (t *Topic[T]) SetFallback(value *T) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value != nil {
		return false
	}
	t.fallback = value
	return true
}

// ShowFallback publishes the fallback where there is nothing better.
func (t *Topic[T]) ShowFallback() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == nil && t.fallback != nil {
		t.setLocked(t.fallback, time.Time{})
	}
}

// Searched notes that no other fallback will be found.
func (t *Topic[T]) Searched() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.searching {
		t.searching = false
		t.wakeLocked(time.Time{})
	}
}

// Why returns why there is no value. It returns nil once there is one, and while a fallback may
// still be shown.
func (t *Topic[T]) Why() error {
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

// RemindLater wakes subscribers from time to time, to report why there is no value, until there
// is one or the Topic is closed.
func (t *Topic[T]) RemindLater() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == nil && t.closed == nil {
		t.reminder = time.AfterFunc(AnswerTimeout, t.remind)
	}
}

func (t *Topic[T]) remind() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == nil && t.closed == nil {
		t.overdue = true
		t.wakeLocked(time.Time{})
		t.reminder.Reset(AnswerTimeout)
	}
}

// unsubscribe reports whether the subscriber was the last.
func (t *Topic[T]) unsubscribe(element *list.Element) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.subscribers.Len()
	s := t.subscribers.Remove(element).(subscriber)
	if t.closed == nil && t.subscribers.Len() < n {
		s.closeLocked()
	}
	return t.subscribers.Len() == 0
}

// Count returns the number of subscribers.
func (t *Topic[T]) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.subscribers.Len()
}

// Close ends every subscription for a reason, and returns what closes when the deliveries
// under way have ended.
func (t *Topic[T]) Close(reason error) (ended []<-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.allLocked() {
		if t.closed == nil {
			s.closeLocked()
		}
		if d, ok := s.(*Delivery[T]); ok && d.busy {
			ended = append(ended, d.doneLocked())
		}
	}
	t.closed = cmp.Or(t.closed, reason)
	return ended
}

// closedReason returns why a subscription that is closed gets no other value.
func (t *Topic[T]) closedReason() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.closed, etcdkv.ErrClosed)
}

func (t *Topic[T]) wakeLocked(received time.Time) {
	if t.observer != nil {
		backoff.Wake(t.observer)
	}
	for s := range t.allLocked() {
		s.wakeLocked(received)
	}
}

func (t *Topic[T]) allLocked() iter.Seq[subscriber] {
	return func(yield func(subscriber) bool) {
		for e := t.subscribers.Front(); e != nil && yield(e.Value.(subscriber)); e = e.Next() {
		}
	}
}

// startLocked has a goroutine begin with the deliveries that are due, unless one is about to.
func (t *Topic[T]) startLocked() {
	if len(t.due) > 0 && !t.starting {
		t.starting = true
		go t.deliverDue()
	}
}

// deliverDue begins deliveries one after the other. None waits for a slow one: while there
// are more, another goroutine is about to begin with them. Where none is slow there are
// hardly more goroutines than processors, and their stacks have grown already: with one for each
// BenchmarkDelivery takes seven times as long for 100 subscribers.
func (t *Topic[T]) deliverDue() {
	background.GrowStack() // most functions come to gRPC; see the scenarios lone of module bench
	t.mu.Lock()
	t.starting = false
	for len(t.due) > 0 {
		d := t.due[0]
		if t.due[0], t.due = nil, t.due[1:]; len(t.due) == 0 {
			t.due = nil
		}
		t.startLocked()
		t.mu.Unlock()
		d.run()
		t.mu.Lock()
	}
	t.mu.Unlock()
}
