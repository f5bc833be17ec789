// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"container/list"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/throttle"
)

// Delivery has a function called with the values of a topic. It may miss values in between,
// never the last one. It has a goroutine only while the function is called.
type Delivery[T any] struct {
	topic   *Topic[T]
	element *list.Element
	deliver func(*T, error)

	// Owned by whoever delivers.
	reported string            // last error delivered
	throttle throttle.Throttle // of what deliver takes

	// Guarded by topic.mu.
	got    *T            // last value delivered
	seen   int           // topic.changes when it was
	news   bool          // something has changed since it was looked at
	closed bool          // nothing more is delivered
	busy   bool          // a delivery is due or under way
	done   chan struct{} // closed when it has ended; nil: nobody waits for that
	later  *time.Timer   // of the delivery that is to wait; nil: none
	lag
}

// Deliver adds a function, which is called at once where there is something to deliver.
func (t *Topic[T]) Deliver(deliver func(*T, error)) *Delivery[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := &Delivery[T]{topic: t, deliver: deliver, closed: t.closed != nil, seen: max(t.changes-1, 0)} // what is there is one change to this one
	d.element = t.subscribers.PushBack(d)
	if t.value != nil || t.err != nil || t.overdue {
		d.wakeLocked(time.Time{})
	}
	return d
}

// Close ends the delivery and waits for 50 ms at most for a call under way. It reports whether
// that was the topic's last subscriber.
func (d *Delivery[T]) Close() (last bool) {
	last = d.topic.unsubscribe(d.element)
	d.topic.mu.Lock()
	done := d.doneLocked()
	d.topic.mu.Unlock()
	if done != nil {
		Await([]<-chan struct{}{done})
	}
	return last
}

func (d *Delivery[T]) closeLocked() {
	d.closed = true
	if d.later != nil {
		d.later.Stop()
	}
}

func (d *Delivery[T]) wakeLocked(received time.Time) {
	d.noteLocked(received)
	if d.news = true; !d.busy && d.later == nil && !d.closed {
		d.busy = true
		d.topic.due = append(d.topic.due, d)
		d.topic.startLocked()
	}
}

// resume goes on with a delivery that was to wait.
func (d *Delivery[T]) resume() {
	d.topic.mu.Lock()
	defer d.topic.mu.Unlock()
	d.later = nil
	d.wakeLocked(time.Time{})
}

// doneLocked returns what closes when the delivery that is due or under way has ended, nil where there is
// none.
func (d *Delivery[T]) doneLocked() <-chan struct{} {
	if d.busy && d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

// restLocked notes that a delivery has ended.
func (d *Delivery[T]) restLocked() {
	if d.busy = false; d.done != nil {
		close(d.done)
		d.done = nil
	}
}

// run delivers what is due.
func (d *Delivery[T]) run() {
	for d.next(d.unreported()) {
	}
}

// unreported returns why there is no value, unless that was delivered.
func (d *Delivery[T]) unreported() error {
	d.topic.mu.Lock()
	d.news = false
	d.topic.mu.Unlock()
	if why := d.topic.Why(); why != nil && why.Error() != d.reported {
		return why
	}
	return nil
}

// next delivers the newest value, or else why there is none. It reports false where nothing is
// due.
func (d *Delivery[T]) next(why error) bool {
	t := d.topic
	t.mu.Lock()
	value, changes := t.value, t.changes-d.seen
	switch fresh := value != d.got; {
	case d.news && !d.closed: // it changed meanwhile
		t.mu.Unlock()
		return true
	case d.closed, !fresh && (value != nil || why == nil):
		d.restLocked()
		t.mu.Unlock()
		return false
	case fresh:
		why = nil
		if wait := time.Until(d.throttle.Due(changes, t.changedAt)); wait > 0 {
			d.later = time.AfterFunc(wait, d.resume)
			d.restLocked()
			t.mu.Unlock()
			return false
		}
		d.got, d.seen = value, t.changes
		d.endLocked(t.latency)
	default:
		d.reported = why.Error()
	}
	t.mu.Unlock()
	began := time.Now()
	d.deliver(value, why)
	d.throttle.Worked(changes, time.Now(), time.Since(began))
	return true
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
