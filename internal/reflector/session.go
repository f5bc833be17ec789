// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// session is one watch, with what was known when it was opened.
type session struct {
	stream  uint64          // watch stream that it is on
	verify  uint64          // Status.Verify that was acted on
	changed <-chan struct{} // the monitor's status changed

	opened chan clientv3.WatchChan // the watch, once etcd has answered
	events clientv3.WatchChan      // nil until then

	checks   chan error // outcome of the check under way; nil before the first
	checking bool
	reason   checkReason // of the check under way

	ctx    context.Context // of the watch, and of what runs beside it
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// open begins a watch from r.resume on. Opening blocks until etcd answers, so it has a
// goroutine of its own.
func (r *Reflector) open() *session {
	status, changed := r.monitor.Status()
	s := &session{stream: status.Stream, verify: status.Verify, changed: changed,
		opened: make(chan clientv3.WatchChan, 1)}
	s.ctx, s.cancel = context.WithCancel(r.group.client.Ctx())
	wctx, revision, opened := r.monitor.StreamContext(s.ctx, status.Stream), r.resume, s.opened
	r.group.watches.Add(1)
	s.wg.Go(func() { opened <- etcdkv.Watch(wctx, r.group.client, r.keys, revision) })
	return s
}

func (s *session) close() {
	s.cancel()
	s.wg.Wait()
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
	timer := time.NewTimer(backoff.Never)
	defer timer.Stop()
	for {
		due := r.nextCheck
		if r.unpublished > 0 {
			due = backoff.Earlier(due, r.publishDue())
		}
		timer.Reset(max(time.Until(due), 1)) // go1.26 may crash on one of the past, in synctest with -race
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s.events = <-s.opened:
			s.opened = nil
		case resp, ok := <-s.events:
			err = r.receive(s, resp, ok)
		case <-timer.C:
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

// receive takes in one response of the watch, and publishes it unless it is to wait for more.
func (r *Reflector) receive(s *session, resp clientv3.WatchResponse, ok bool) error {
	if !ok {
		return errWatchEnded
	}
	if err := etcdkv.Typed(resp.Err()); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrPermissionDenied) {
			r.resume = 0 // a list is refused without a login, which a watch alone on its stream costs
		}
		if errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) {
			r.monitor.ReplaceStream(s.stream) // a stream keeps the token it was opened with
		}
		return fmt.Errorf("watch %q: %w", r.keys.Key, err)
	}
	r.monitor.ObserveMessage(s.stream, resp.Header)
	switch {
	case resp.Created:
		r.opened = time.Now()
		if status, _ := r.monitor.Status(); status.Outage == nil {
			r.store.SetStatus(nil)
		}
	case resp.IsProgressNotify():
		r.resume = max(r.resume, resp.Header.Revision+1)
	}
	r.apply(resp.Events)
	if len(s.events) == 0 { // else there is more at once
		r.publishIfDue()
	}
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
	case status.Stream != s.stream:
		return errStreamReplaced
	case status.Outage != nil:
		r.store.SetStatus(status.Outage.Cause)
	case s.events != nil:
		r.store.SetStatus(nil)
	}
	if status.Verify != s.verify {
		s.verify = status.Verify
		s.check(r, onProxy)
	}
	return nil
}
