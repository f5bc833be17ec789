// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// Subscription is one consumer's view of a service, pulled by Next. Its consumer may miss
// snapshots in between, never the last one. Next is for one goroutine at a time, all other
// methods are for any.
type Subscription struct {
	following
	subscriber *topic.Subscriber[Snapshot]
}

// Subscribe follows the instances of a service: every key under "<service>/" and
// nothing else. The name is taken as it is; ParseService normalises what users type.
func (d *Directory) Subscribe(service string) (*Subscription, error) {
	if err := checkService(service); err != nil {
		return nil, err
	}
	return d.SubscribePrefix(service + "/")
}

// SubscribePrefix follows every key that starts with prefix, for views of many
// services; an empty prefix is the whole store.
func (d *Directory) SubscribePrefix(prefix string) (*Subscription, error) {
	return d.pull(etcdkv.Prefix(prefix), prefix, make(chan struct{}, 1))
}

// pull makes a Subscription that is woken through a channel of capacity one, which may serve
// others as well.
func (d *Directory) pull(keys etcdkv.KeyRange, prefix string, changed chan struct{}) (*Subscription, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := new(Subscription)
	var err error
	s.following, err = d.followLocked(keys, prefix, func(t *topic.Topic[Snapshot]) { s.subscriber = t.Subscribe(changed) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Next waits for a snapshot that it has not returned yet and returns the newest, at once
// where there is one: it skips what came in between, but does not slow its caller down. A
// snapshot that differs from the last in its Staleness alone is another one. Next ends with the
// context's error, which before the first snapshot wraps Err as well. Once the subscription, its
// Directory or the etcd client was closed, it ends with one that wraps ErrClosed, every time, but
// for a last snapshot that it has not returned yet, marked stale.
func (s *Subscription) Next(ctx context.Context) (*Snapshot, error) {
	snap, err := s.subscriber.Next(ctx)
	if err == nil || errors.Is(err, ErrClosed) || s.Latest() != nil {
		return snap, err
	}
	if reason := s.Err(); reason != nil {
		err = fmt.Errorf("%w: %w", err, reason)
	}
	return nil, err
}

// First waits for the first snapshot as Next does, and gives up where etcd does not let this
// client log in or read the service, which Next waits out.
func (s *Subscription) First(ctx context.Context) (*Snapshot, error) {
	for s.Latest() == nil {
		if err := s.Err(); etcdkv.AccessDenied(err) {
			return nil, err
		}
		select {
		case <-s.Changed():
			continue
		case <-s.subscriber.Done():
		case <-ctx.Done():
		}
		break
	}
	return s.Next(ctx)
}

// Changed is woken, at least once, after Latest or Err have changed.
func (s *Subscription) Changed() <-chan struct{} { return s.subscriber.Changed() }

// Latest returns the newest snapshot, nil before the first.
func (s *Subscription) Latest() *Snapshot { return s.latest() }

// Err returns why there is no snapshot yet. It returns nil once there is one, during the first
// second, and while etcd's answer is arriving.
func (s *Subscription) Err() error { return s.informer.store.topic.Why() }

// Refresh requests a comparison of the service with etcd, which is made at most once in 10 s.
// Call it if something looks out of date.
func (s *Subscription) Refresh() { s.refresh() }

// Close ends the subscription; the last one of a service ends its watch and joins it. Calling
// it again does nothing.
func (s *Subscription) Close() {
	if s.subscriber.Close() {
		s.directory.release(s.informer)
	}
}

// Delivery is a subscription whose snapshots are pushed to a function, which is not told when it
// is closed.
type Delivery struct {
	following
	delivery *topic.Delivery[Snapshot]
}

// SubscribeFunc calls f with the snapshots of a service, one call at a time and perhaps before
// SubscribeFunc returns, until the Delivery, its Directory or the etcd client is closed. Before
// the first snapshot f is called with a nil snap for each new error. A Delivery has a goroutine
// only while f is called.
//
// A change that comes alone is delivered at once, as long as f takes no more than a fifth of the
// time, with 250 ms saved up. Changes that come faster than f can take in each are folded: they
// are delivered when they pause, and while they last up to 75 times as far apart as f takes, at
// least every 100 ms, or as often as a fifth of the time allows; no change waits for f for longer
// than a second.
func (d *Directory) SubscribeFunc(service string, f func(snap *Snapshot, err error)) (*Delivery, error) {
	if err := checkDelivery(service, f == nil); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deliverLocked(service, f)
}

func (d *Directory) deliverLocked(service string, f func(snap *Snapshot, err error)) (*Delivery, error) {
	prefix := service + "/"
	s := new(Delivery)
	var err error
	s.following, err = d.followLocked(etcdkv.Prefix(prefix), prefix, func(t *topic.Topic[Snapshot]) { s.delivery = t.Deliver(f) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Latest returns the newest snapshot, delivered or not, nil before the first.
func (d *Delivery) Latest() *Snapshot { return d.latest() }

// Refresh has the service compared with etcd, as Subscription.Refresh does.
func (d *Delivery) Refresh() { d.refresh() }

// Close ends the delivery. A call of its function that is under way is waited for, but not for
// more than 50 ms, not even by itself: it ends on its own then. The last subscription of a
// service ends its watch and joins it. Calling it again does nothing.
func (d *Delivery) Close() {
	if d.delivery.Close() {
		d.directory.release(d.informer)
	}
}

// SubscribeServiceConfigFunc has f called with the service config of a service, at once and
// when it changes, one call at a time and perhaps before SubscribeServiceConfigFunc returns,
// until the ConfigDelivery, its Directory or the etcd client is closed. Before the first f is
// called with the reasons why there is none yet, once each: err is not nil then, and config is.
// For a service without one config.JSON is nil. While etcd cannot be reached the last one
// stays; it is not marked as stale.
//
// One watch follows the service configs of all services. Where the role may not read them all,
// each one that is asked for is watched by itself, and the others are tried again every 5 min on
// average; so is one that the role may not read.
func (d *Directory) SubscribeServiceConfigFunc(service string, f func(config *ServiceConfig, err error)) (*ConfigDelivery, error) {
	if err := checkDelivery(service, f == nil); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return nil, err
	}
	return d.configs.subscribe(service, f), nil
}

// SubscribeServiceFunc is SubscribeFunc and SubscribeServiceConfigFunc in one. Where neither the
// service nor the service configs are followed yet, etcd is asked once for both.
func (d *Directory) SubscribeServiceFunc(service string, f func(snap *Snapshot, err error), config func(config *ServiceConfig, err error)) (*Delivery, *ConfigDelivery, error) {
	if err := checkDelivery(service, f == nil || config == nil); err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.group.Hold()()
	delivery, err := d.deliverLocked(service, f)
	if err != nil {
		return nil, nil, err
	}
	return delivery, d.configs.subscribe(service, config), nil
}

func checkDelivery(service string, noFunc bool) error {
	if noFunc {
		return inputError("function", "nil", "nothing can be delivered to it; Subscribe gives snapshots without one")
	}
	return checkService(service)
}
