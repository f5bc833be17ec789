// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	fleetSpread     = 500 * time.Millisecond // a fleet that lost its leases together does not come back together
	maxFormer       = 8                      // earlier leases that are remembered
	verifyKeysEvery = 5 * time.Second        // longest time between two reads of keys that no live watch covers
)

// What ends the maintenance of a lease. A lease that was not renewed for its whole time may
// have expired, or not.
var (
	errNotRenewed    = errors.New("lease was not renewed")
	errLeaseReplaced = errors.New("lease was replaced")
)

// run maintains a lease and reconciles the registrations, until the context or the client
// ends.
func (r *Registrar) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.client.Ctx(), cancel)()
	defer func() {
		if r.client.Ctx().Err() != nil {
			r.clientClosed()
		}
	}()
	var retry backoff.Backoff
	for ctx.Err() == nil {
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

// ensureLease leaves the Registrar with a lease that etcd has: the one it had, if that
// still lives, else a new one.
func (r *Registrar) ensureLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	if r.lease != 0 {
		left, err := r.client.TimeToLive(ctx, r.lease)
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("look up lease %x: %w", int64(r.lease), err)
		}
		if err == nil && left.TTL > 0 {
			return nil
		}
		r.logger().Debug("lease has expired; registering again under a new one", "lease", leaseText(r.lease))
		r.counts.leasesExpired.Add(1)
		r.forget(r.lease)
		r.leased(0, 0)
		if err := backoff.Sleep(ctx, backoff.Jitter(fleetSpread), nil); err != nil {
			return err
		}
	}
	return r.grant(ctx)
}

// grant obtains a lease and puts it in the place of the present one.
func (r *Registrar) grant(ctx context.Context) error {
	seconds := int64((r.opts.TTL + time.Second - 1) / time.Second)
	resp, err := r.client.Grant(ctx, seconds)
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	r.counts.leases.Add(1)
	r.leased(resp.ID, time.Duration(resp.TTL)*time.Second)
	return nil
}

// leased records the lease, 0 for none; every registration must be put under it. What is to
// be removed while there is none went with the lease before.
func (r *Registrar) leased(lease clientv3.LeaseID, ttl time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease != 0 {
		r.former = append(r.former[max(0, len(r.former)-maxFormer+1):], r.lease)
	}
	r.lease, r.ttl, r.leasedAt = lease, ttl, time.Now()
	if lease == 0 {
		clear(r.deregistered)
	}
	for _, g := range r.regs {
		g.dirty, g.retry, g.notBefore = true, backoff.Backoff{}, time.Time{}
		g.observed.state = r.keyStateLocked(g.observed.kv)
		if g.desired.removed && lease == 0 && len(r.unanswered[g.key]) == 0 {
			r.finishLocked(g, nil)
		}
	}
}

// interrupted records why registrations are not, or may not be, in etcd.
func (r *Registrar) interrupted(err error) {
	err = r.explain(err)
	r.logger().Debug("registrations interrupted", "cause", err)
	r.mu.Lock()
	for _, g := range r.regs {
		g.dirty = true
		if !g.desired.removed {
			r.missingLocked(g, err)
		}
	}
	r.mu.Unlock()
	r.logEvents()
}

// explain adds what is known of the connection to an error that may come from it, such as
// a time-out.
func (r *Registrar) explain(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || !concernsAll(err) && !errors.Is(err, errNotRenewed) {
		return err
	}
	if cause := r.directory.outage(); cause != nil {
		return fmt.Errorf("%w: %w", err, cause)
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrNoAnswer) {
		return fmt.Errorf("%w: %w", err, etcdkv.NoAnswer(r.client))
	}
	return err
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
	chores := r.newChores()
	defer chores.stop()
	var retry backoff.Backoff
	for {
		due, err := r.reconcileAll(ctx)
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
			r.logger().Debug("cannot write registrations", "cause", err)
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

// keepAlive renews the lease, and those that are retired and may still have keys, until
// the context ends; it cancels when the lease was not renewed for its whole time.
func (r *Registrar) keepAlive(ctx context.Context, renewals *sync.WaitGroup, cancel context.CancelCauseFunc) error {
	for _, lease := range append(slices.Clone(r.retired), r.lease) {
		present, ttl := lease == r.lease, r.ttl
		// Never with a required leader: the client would go on renewing a lease that no
		// longer exists (etcd#22094).
		alive, err := r.client.KeepAlive(ctx, lease)
		if err != nil {
			return fmt.Errorf("keep lease %x alive: %w", int64(lease), err)
		}
		renewals.Go(func() {
			for {
				select {
				case _, ok := <-alive:
					switch {
					case ok && present:
						r.counts.renewals.Add(1)
					case present:
						cancel(fmt.Errorf("%w within %v", errNotRenewed, ttl))
						return
					case !ok:
						return
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return nil
}

func leaseText(lease clientv3.LeaseID) string { return fmt.Sprintf("%x", int64(lease)) }
