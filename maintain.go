// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// verifyKeysEvery is the longest time between two looks at the keys that no live watch covers.
const verifyKeysEvery = 5 * time.Second

// run maintains a lease and reconciles the registrations, until the context or the client
// ends.
func (r *Registrar) run(ctx context.Context) {
	defer func() {
		if r.client.Ctx().Err() != nil {
			r.clientClosed()
		}
	}()
	var retry backoff.Backoff
	for ctx.Err() == nil {
		r.dropClosed()
		if r.idle() {
			_ = backoff.Sleep(ctx, time.Hour, r.wake)
			continue
		}
		err := r.ensureLease(ctx)
		if err == nil {
			began := time.Now()
			err = r.maintain(ctx)
			if time.Since(began) > backoff.Ceiling {
				retry.Reset()
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errLeaseReplaced):
			continue
		}
		if errors.Is(err, errNotRenewed) {
			r.counts.leasesUnrenewed.Add(1)
		}
		r.interrupted(err)
		_ = backoff.Sleep(ctx, retry.Next(), r.directory.recovered())
	}
}

// clientClosed ends every registration.
func (r *Registrar) clientClosed() {
	r.mu.Lock()
	r.closed = true
	var subs []*Subscription
	for _, g := range r.regs {
		subs = append(subs, r.unwatchLocked(g))
		r.finishLocked(g, etcdkv.ErrClientClosed)
	}
	r.mu.Unlock()
	r.logEvents()
	for _, sub := range subs {
		if sub != nil {
			sub.Close()
		}
	}
}

// idle reports whether no lease is needed.
func (r *Registrar) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.regs) == 0 && r.lease == 0
}

// dropClosed drops closed registrations that were to be looked at.
func (r *Registrar) dropClosed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	closed := func(g *Registration) bool { return g.state.Phase == Closed }
	r.dirty = slices.DeleteFunc(r.dirty, closed)
	r.unwatched = slices.DeleteFunc(r.unwatched, closed)
	r.unread = slices.DeleteFunc(r.unread, closed)
}

// interrupted records why registrations are not, or may not be, in etcd.
func (r *Registrar) interrupted(err error) {
	err = r.explain(err)
	r.Logger().Debug("registrations interrupted", "cause", err)
	r.mu.Lock()
	for _, g := range r.regs {
		g.dirtyLocked()
		if !g.desired.removed {
			r.missingLocked(g, err)
		}
	}
	r.mu.Unlock()
	r.logEvents()
}

// maintain keeps the lease alive and reconciles registrations until the lease is in doubt:
// its keepalives went unanswered for its whole time, or a write found that etcd does not have
// it. That cancels the calls under way, which may be waiting for an etcd that is gone.
func (r *Registrar) maintain(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var renewals sync.WaitGroup
	defer renewals.Wait()
	defer cancel(nil)
	if err := r.keepAlive(ctx, &renewals, cancel); err != nil {
		return err
	}
	ctx = clientv3.WithRequireLeader(ctx) // a member without one says so at once, and the next is asked
	chores := r.newChores()
	defer chores.stop()
	var retry backoff.Backoff
	for {
		r.observeWatches()
		due, err := r.reconcileAll(ctx)
		r.watchServices()
		if err == nil {
			retry.Reset()
			var fence time.Time
			fence, err = r.fence(ctx)
			due = backoff.Earlier(due, fence)
		}
		r.logEvents()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, errLeaseReplaced):
			return err
		case err != nil: // which other registrations would meet too
			r.Logger().Debug("cannot write registrations", "cause", err)
			due = backoff.Earlier(due, time.Now().Add(min(retry.Next(), time.Second)))
		}
		if err := r.wait(ctx, chores, due, err != nil); err != nil {
			return err
		}
	}
}

// chores are due from time to time while a lease is maintained.
type chores struct {
	verify  *time.Ticker
	restore *time.Timer
	remind  *time.Ticker
}

func (r *Registrar) newChores() *chores {
	return &chores{
		verify:  time.NewTicker(min(max(r.ttl/3, time.Second), verifyKeysEvery)),
		restore: time.NewTimer(r.restoredPause()),
		remind:  time.NewTicker(etcdconn.LogPeriod),
	}
}

func (c *chores) stop() {
	c.verify.Stop()
	c.restore.Stop()
	c.remind.Stop()
}

// wait does chores until a registration is dirty or due. While etcd fails, it waits for
// the time or the connection, whatever is dirty.
func (r *Registrar) wait(ctx context.Context, c *chores, due time.Time, failing bool) error {
	wake, recovered := r.wake, (<-chan struct{})(nil)
	if failing {
		wake, recovered = nil, r.directory.recovered()
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.verify.C:
			if r.verifyKeys(ctx) && !failing {
				return nil
			}
		case <-c.restore.C:
			r.deleteRestored(ctx)
			c.restore.Reset(r.restoredPause())
		case <-c.remind.C:
			r.remind()
		case <-wake:
			return nil
		case <-recovered:
			return nil
		case <-timer.C:
			return nil
		}
	}
}
