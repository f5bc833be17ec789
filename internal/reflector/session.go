// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// session is one watch, with what was known when it was opened.
type session struct {
	watch   *etcdkv.Watch
	created bool            // etcd has confirmed the watch
	verify  uint64          // Status.Verify that was acted on
	changed <-chan struct{} // the monitor's status changed

	checks   chan error // outcome of the check under way; nil before the first
	checking bool
	reason   checkReason // of the check under way
	stop     func()      // ends and joins it; nil before the first
}

// open begins a watch from r.resume on.
func (r *Reflector) open() *session {
	status, changed := r.monitor.Status()
	r.group.watches.Add(1)
	return &session{watch: r.monitor.Watch(r.keys, r.resume), verify: status.Verify, changed: changed}
}

func (s *session) close() {
	s.watch.Close()
	if s.stop != nil {
		s.stop()
	}
}

// follow watches from where the Reflector is, after a list where one is needed, until the
// watch ends, and returns why it did.
func (r *Reflector) follow(ctx context.Context) error {
	if r.resume == 0 {
		if err := r.list(ctx); err != nil {
			return err
		}
		// Subscribers are told before the watch is opened, which takes longer. The scenarios cold of
		// module bench show it.
		runtime.Gosched()
	}
	err := r.watch(ctx)
	if ctx.Err() == nil {
		r.cause = causeOf(err)
		r.group.restarts.add(r.cause)
	}
	return err
}

// watch watches from where the Reflector is until the watch ends, and returns why it did.
func (r *Reflector) watch(ctx context.Context) error {
	s := r.open()
	defer s.close()
	if err := r.heedStatus(s); err != nil {
		return err
	}
	for {
		due := r.nextCheck
		if r.unpublished > 0 {
			due = backoff.Earlier(due, r.publishDue())
		}
		r.timer.Reset(max(time.Until(due), 1)) // go1.26 may crash on one of the past, in synctest with -race
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.watch.Ready():
			err = r.receive(s)
		case <-r.timer.C:
			r.publishIfDue()
			r.checkIfDue(s)
		case <-s.changed:
			err = r.heedStatus(s)
		case <-r.verify:
			s.check(r, onHint)
		case outcome := <-s.checks:
			s.checking = false
			err = r.heedCheck(s, outcome)
		}
		if err != nil {
			return err
		}
	}
}

// receive takes in what the watch has brought, and publishes it unless it is to wait for more.
func (r *Reflector) receive(s *session) error {
	for _, resp := range s.watch.Take() {
		if err := r.take(s, resp); err != nil {
			return err
		}
	}
	r.publishIfDue()
	return nil
}

// take takes in one response of the watch.
func (r *Reflector) take(s *session, resp etcdkv.WatchResponse) error {
	if err := resp.Err; err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrPermissionDenied) {
			r.resume = 0 // a list is refused without a login, which a watch alone on its stream costs
		}
		if etcdkv.TokenRefused(err) && (etcdkv.LogsIn(r.group.client) || !errors.Is(err, rpctypes.ErrUserEmpty)) {
			r.monitor.ReplaceStream(s.watch.Generation()) // it keeps the token it was opened with, or none
		}
		return r.errorOf("watch", err)
	}
	switch {
	case resp.Created:
		s.created, r.opened = true, time.Now()
		if status, _ := r.monitor.Status(); status.Outage == nil {
			r.store.SetStatus(nil)
		}
	case resp.IsProgress():
		r.resume = max(r.resume, resp.Header.Revision+1)
	}
	r.apply(resp.Events)
	return nil
}

// apply takes in events, without those that were seen before the watch was opened again.
func (r *Reflector) apply(events []*clientv3.Event) {
	if len(events) == 0 {
		return
	}
	if events[0].Kv.ModRevision < r.resume {
		resume := r.resume
		events = slices.DeleteFunc(events, func(ev *clientv3.Event) bool { return ev.Kv.ModRevision < resume })
	}
	if n := len(events); n > 0 {
		r.store.Apply(events)
		r.unpublished++
		r.applied = time.Now()
		r.revision = max(r.revision, events[n-1].Kv.ModRevision)
	}
	r.resume = r.revision + 1
	r.monitor.ObserveRevision(r.revision, r.epoch)
}

// heedStatus acts on a changed status of the connection.
func (r *Reflector) heedStatus(s *session) error {
	status, changed := r.monitor.Status()
	s.changed = changed
	switch {
	case status.Epoch != r.epoch:
		r.resume = 0
		return errNewEpoch
	case status.Outage != nil:
		r.store.SetStatus(status.Outage.Cause)
	case s.created:
		r.store.SetStatus(nil)
	}
	if status.Verify != s.verify {
		s.verify = status.Verify
		s.check(r, onProxy)
	}
	return nil
}
