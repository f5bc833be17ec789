// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/throttle"
)

const (
	optionalPeriod = 5 * time.Minute        // on average, between tries of an optional range that may not be read
	refusedPeriod  = 250 * time.Millisecond // on average, between tries of all other ranges together
	grantedPeriod  = 20 * time.Millisecond  // the same, once one of them may be read
	steadyWatch    = time.Second            // a watch that lasted so long resets the back-off
)

// What ends a watch although nothing is wrong with etcd.
var (
	errNewEpoch     = errors.New("etcd has a new epoch")
	errInconsistent = errors.New("content differs from etcd")
)

// Reflector keeps a Store in line with a range of keys.
type Reflector struct {
	group   *Group
	monitor *etcdconn.Monitor
	keys    etcdkv.KeyRange
	store   Store
	opts    Options
	verify  chan struct{} // capacity 1: Verify was called

	// Owned by run.
	turn        *turn // reserved for the first list; nil: used, or given up
	revision    int64 // that has been applied
	resume      int64 // revision to watch from; 0: list first
	cause       Cause // of the next list
	unpublished int   // responses whose events were applied and not published
	epoch       int
	retry       backoff.Backoff
	opened      time.Time        // when etcd confirmed the watch; zero: it has not
	askedDuring *etcdconn.Outage // the last outage in which a member without a leader was asked
	throttle    throttle.Throttle
	timer       *time.Timer // fires when something is to be published or checked
	applied     time.Time   // when events last were
	checked     time.Time   // when a check was last begun
	nextCheck   time.Time   // when everything is to be compared again

	mu       sync.Mutex
	answered time.Time // last answer to a list, or the start
}

func newReflector(g *Group, keys etcdkv.KeyRange, store Store, opts Options) *Reflector {
	return &Reflector{group: g, monitor: g.monitor, keys: keys, store: store, opts: opts,
		verify: make(chan struct{}, 1), answered: time.Now(), turn: g.lister.limiter.reserveIfHeld(&keys)}
}

// Verify has the content compared with etcd, soon and at most once in 10 s.
func (r *Reflector) Verify() { backoff.Wake(r.verify) }

// Silence returns for how long no answer to a list has arrived, to the Reflector's own or to
// those that it may have to wait for.
func (r *Reflector) Silence() time.Duration {
	r.mu.Lock()
	answered := r.answered
	r.mu.Unlock()
	return min(time.Since(answered), r.group.lister.limiter.silence())
}

func (r *Reflector) noteAnswer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = time.Now()
}

// run lists and watches until the context ends or the client is closed.
func (r *Reflector) run(ctx context.Context) {
	defer r.giveUpTurn()
	defer r.monitor.HoldStream()()
	r.nextCheck = time.Now().Add(r.checkPause())
	r.timer = time.NewTimer(backoff.Never)
	defer r.timer.Stop()
	status, _ := r.monitor.Status()
	r.epoch = status.Epoch
	for r.awaitConnection(ctx) == nil {
		err := r.follow(ctx)
		r.publish()
		if ctx.Err() == nil {
			r.backOff(ctx, err)
		}
	}
	if r.group.client.Ctx().Err() != nil {
		r.store.SetStatus(etcdkv.ErrClientClosed)
	}
}

// giveUpTurn withdraws the turn of a first list that is not to be now.
func (r *Reflector) giveUpTurn() {
	r.group.lister.limiter.withdraw(r.turn)
	r.turn = nil
}

// awaitConnection waits while there is an outage: only the monitor asks whether etcd is back.
// Where there is no leader, a member is asked once for what it has.
func (r *Reflector) awaitConnection(ctx context.Context) error {
	for {
		status, changed := r.monitor.Status()
		if status.Outage == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		r.giveUpTurn() // an answer to it would be old when the outage is over
		cause := status.Outage.Cause
		if r.resume == 0 && r.askedDuring != status.Outage && errors.Is(cause, rpctypes.ErrNoLeader) {
			r.askedDuring = status.Outage
			cause = cmp.Or(r.listWithoutLeader(ctx, cause), cause)
		}
		r.store.SetStatus(cause)
		if err := backoff.Sleep(ctx, backoff.Never, changed); err != nil {
			return err
		}
	}
}

// backOff waits until it makes sense to try again after a watch or a list ended with err.
func (r *Reflector) backOff(ctx context.Context, err error) {
	if !r.opened.IsZero() && time.Since(r.opened) >= steadyWatch {
		r.retry.Reset()
	}
	r.opened = time.Time{}
	switch {
	case errors.Is(err, etcdkv.ErrStreamReplaced), errors.Is(err, errInconsistent), errors.Is(err, errNewEpoch):
		return
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		r.store.SetStatus(err)
		r.awaitGrant(ctx)
		return
	case errors.Is(err, rpctypes.ErrCompacted) && r.retry.Failures() < 2:
		r.retry.Next()
		return
	}
	r.monitor.Recheck(ctx)
	if status, _ := r.monitor.Status(); status.Outage != nil || ctx.Err() != nil {
		return
	}
	atOnce := r.retry.Failures() == 0 && r.resume > 0 // the first time that a watch ended
	if wait := r.retry.Next(); !atOnce {
		r.store.SetStatus(err)
		_ = backoff.Sleep(ctx, wait, r.monitor.Recovered())
	}
}

// awaitGrant waits before a range that may not be read is asked for again. The more there are
// the longer each waits, so that all together ask no more often, not after an outage either.
// When one of them may be read, the others look soon.
func (r *Reflector) awaitGrant(ctx context.Context) {
	r.group.setAccess(r, accessRefused)
	for down := true; down && ctx.Err() == nil; {
		refused, granted := r.group.refused()
		all := time.Duration(refused) * refusedPeriod
		wait := max(r.retry.Next(), all/2+backoff.Jitter(all))
		if r.opts.Optional {
			wait = optionalPeriod/2 + backoff.Jitter(optionalPeriod)
		}
		until := time.Now().Add(wait)
		_ = backoff.Sleep(ctx, wait, granted)
		if left := time.Until(until); left > 0 {
			_ = backoff.Sleep(ctx, min(left, backoff.Jitter(time.Duration(refused)*grantedPeriod)), nil)
		}
		status, changed := r.monitor.Status()
		if down = status.Outage != nil; down {
			_ = backoff.Sleep(ctx, backoff.Never, changed)
		}
	}
}

// list reads the range and replaces the store's content.
func (r *Reflector) list(ctx context.Context) error {
	list, at, err := r.read(ctx, false)
	if err != nil {
		return r.errorOf("list", err)
	}
	r.epoch = r.monitor.ObserveResponse(at.Revision, at.Term, at.floor)
	r.group.setAccess(r, accessGranted)
	if status, _ := r.monitor.Status(); status.Epoch != r.epoch {
		return errNewEpoch // it began meanwhile: the response may be of either
	}
	list.Replace(Version{at.Revision, r.epoch}, nil)
	r.resume, r.revision, r.unpublished = at.Revision+1, at.Revision, 0
	return nil
}

// listWithoutLeader takes what a member without a leader has, as stale for that cause, if it
// is not older than what was seen.
func (r *Reflector) listWithoutLeader(ctx context.Context, cause error) error {
	list, at, err := r.read(ctx, true)
	if err != nil {
		return r.errorOf("list", err)
	}
	r.epoch = at.floor.Epoch
	if status, _ := r.monitor.Status(); status.Epoch != r.epoch {
		return errNewEpoch
	}
	if at.Revision < at.floor.Revision || !list.Replace(Version{at.Revision, r.epoch}, cause) {
		return r.errorOf("list", fmt.Errorf("member is behind, at revision %d: %w", at.Revision, cause))
	}
	r.unpublished = 0
	r.monitor.ObserveRevision(at.Revision, r.epoch)
	return nil
}

func (r *Reflector) read(ctx context.Context, serializable bool) (list List, at answer, err error) {
	q := query{keys: r.keys, cause: r.cause, serializable: serializable, answered: r.noteAnswer, turn: r.turn}
	r.turn = nil
	q.newList = func() Adder {
		list = r.store.NewList()
		return list
	}
	at, err = r.group.lister.list(ctx, q)
	return list, at, err
}

// publishDue returns when what was applied is to be published.
func (r *Reflector) publishDue() time.Time { return r.throttle.Due(r.unpublished, r.applied) }

func (r *Reflector) publishIfDue() {
	if r.unpublished > 0 && !time.Now().Before(r.publishDue()) {
		r.publish()
	}
}

// publish publishes what was applied.
func (r *Reflector) publish() {
	if r.unpublished == 0 {
		return
	}
	began := time.Now()
	r.store.Publish(r.revision)
	r.throttle.Worked(r.unpublished, time.Now(), time.Since(began))
	r.unpublished = 0
}
