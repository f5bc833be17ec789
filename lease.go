// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	fleetSpread = 500 * time.Millisecond // a fleet that lost its leases together does not come back together
	mostFormer  = 8                      // lost leases that are remembered
	checkEvery  = 5 * time.Second        // longest time between two checks of keys that no live watch covers
)

var errNotMoved = errors.New("it has not been moved yet")

// errNotRenewed ends a hold whose lease nobody has renewed for its whole time: etcd may be
// unreachable, or refuse it.
var errNotRenewed = errors.New("lease was not renewed")

// errLeaseReplaced ends a hold whose lease was given up for another one.
var errLeaseReplaced = errors.New("lease was replaced")

// run holds a lease and keeps every registration as it should be, until the context or
// the client ends.
func (r *Registrar) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.client.Ctx(), cancel)()
	defer func() {
		if r.client.Ctx().Err() != nil {
			r.abandon()
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
			err = r.hold(ctx)
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
		r.interrupted(err)
		_ = backoff.Sleep(ctx, retry.Next(), r.opts.Directory.recovered())
	}
}

// abandon ends every registration of a client that was closed.
func (r *Registrar) abandon() {
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

// idle reports whether there is nothing to hold a lease for.
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
		r.log.Debug("lease has expired; registering again under a new one", "lease", leaseText(r.lease))
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
	r.leased(resp.ID, time.Duration(resp.TTL)*time.Second)
	return nil
}

// leased records the lease; every registration must be put under it. What is to go while
// there is none is gone already, with the lease that there was.
func (r *Registrar) leased(lease clientv3.LeaseID, granted time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease != 0 {
		r.former = append(r.former[max(0, len(r.former)-mostFormer+1):], r.lease)
	}
	r.lease, r.granted = lease, granted
	if lease == 0 {
		clear(r.departed)
	}
	for _, g := range r.regs {
		g.dirty, g.retry, g.notBefore = true, backoff.Backoff{}, time.Time{}
		if g.gone && lease == 0 && len(r.unanswered[g.key]) == 0 {
			r.finishLocked(g, nil)
		}
	}
}

// forget records that etcd has a lease no longer: nothing stands under it, and nothing
// that was sent can land under it.
func (r *Registrar) forget(lease clientv3.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = slices.DeleteFunc(r.retired, func(l clientv3.LeaseID) bool { return l == lease })
	for key, leases := range r.unanswered {
		leases = slices.DeleteFunc(leases, func(l clientv3.LeaseID) bool { return l == lease })
		if r.unanswered[key] = leases; len(leases) == 0 {
			delete(r.unanswered, key)
		}
	}
	for _, g := range r.regs {
		if g.standing == lease {
			g.standing, g.dirty = clientv3.NoLease, true
			if !g.gone && (g.state.Phase == Registered || g.state.Phase == Draining) {
				r.missedLocked(g, fmt.Errorf("lease %x: %w", int64(lease), rpctypes.ErrLeaseNotFound))
			}
		}
		if g.deleted && len(r.unanswered[g.key]) == 0 {
			r.finishLocked(g, nil)
		}
	}
}

// interrupted records why registrations are not, or may not be, in etcd.
func (r *Registrar) interrupted(err error) {
	err = r.explain(err)
	r.log.Debug("registrations interrupted", "cause", err)
	r.mu.Lock()
	for _, g := range r.regs {
		g.dirty = true
		if !g.gone {
			r.missedLocked(g, err)
		}
	}
	r.mu.Unlock()
	r.logEvents()
}

// explain adds what is known of the connection to an error that may come from it: a
// time-out alone tells little.
func (r *Registrar) explain(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || !concernsAll(err) && !errors.Is(err, errNotRenewed) {
		return err
	}
	if cause := r.opts.Directory.outage(); cause != nil {
		return fmt.Errorf("%w: %w", err, cause)
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrNoAnswer) {
		return fmt.Errorf("%w: %w", err, etcdkv.NoAnswer(r.client))
	}
	return err
}

// hold keeps the lease alive and reconciles registrations until the lease is in doubt:
// its keepalives went unanswered for its whole time, or a write found it gone.
// Doubt cuts short what is under way, which may be waiting for an etcd that is gone.
func (r *Registrar) hold(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var renewals sync.WaitGroup
	defer renewals.Wait()
	defer cancel(nil)
	if err := r.keepAlive(ctx, &renewals, cancel); err != nil {
		return err
	}
	audit := time.NewTicker(min(max(r.granted/3, time.Second), checkEvery))
	defer audit.Stop()
	sweep := time.NewTimer(r.sweepPause())
	defer sweep.Stop()
	remind := time.NewTicker(reportEvery)
	defer remind.Stop()
	var retry backoff.Backoff
	for {
		due, err := r.reconcile(ctx)
		if err == nil {
			retry.Reset()
			var again time.Time
			again, err = r.fence(ctx)
			due = earlier(due, again)
		}
		r.logEvents()
		wake, back := r.wake, (<-chan struct{})(nil)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, errLeaseReplaced):
			return err
		case err != nil: // which all others would meet too, whatever wakes
			r.log.Debug("cannot write registrations", "cause", err)
			due = earlier(due, time.Now().Add(min(retry.Next(), time.Second)))
			wake, back = nil, r.opts.Directory.recovered()
		}
		again := time.NewTimer(time.Until(due))
	wait:
		for {
			select {
			case <-ctx.Done():
				again.Stop()
				return context.Cause(ctx)
			case <-audit.C:
				if r.audit(ctx) && err == nil {
					break wait
				}
			case <-sweep.C:
				r.sweep(ctx)
				sweep.Reset(r.sweepPause())
			case <-remind.C:
				r.remind()
			case <-wake:
				break wait
			case <-back:
				break wait
			case <-again.C:
				break wait
			}
		}
		again.Stop()
	}
}

// keepAlive renews the lease, and those that are retired and may hold keys still, until
// the context ends; it cancels when the lease was not renewed for its whole time.
func (r *Registrar) keepAlive(ctx context.Context, renewals *sync.WaitGroup, cancel context.CancelCauseFunc) error {
	for _, lease := range append(slices.Clone(r.retired), r.lease) {
		present, granted := lease == r.lease, r.granted
		// Never with a required leader: the client would go on renewing a lease that nobody
		// holds any more (etcd#22094).
		alive, err := r.client.KeepAlive(ctx, lease)
		if err != nil {
			return fmt.Errorf("keep lease %x alive: %w", int64(lease), err)
		}
		renewals.Go(func() {
			for {
				select {
				case _, ok := <-alive:
					if ok {
						continue
					}
					if present {
						cancel(fmt.Errorf("%w within %v", errNotRenewed, granted))
					}
					return
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return nil
}

// fence makes it impossible that a closed registration comes back: a create that was sent
// under a lease and never answered can land as long as etcd has that lease. It moves what
// lives on to another lease, and revokes the one. What fails is due again later.
func (r *Registrar) fence(ctx context.Context) (due time.Time, err error) {
	r.mu.Lock()
	retired := slices.Clone(r.retired)
	present, living := slices.Contains(retired, r.lease), false
	if present {
		for _, g := range r.regs {
			living = living || !g.gone
		}
	}
	r.mu.Unlock()
	if len(retired) == 0 {
		r.fencing, r.fenceDue = backoff.Backoff{}, time.Time{}
		return time.Now().Add(backoff.Never), nil
	}
	if time.Now().Before(r.fenceDue) {
		return r.fenceDue, nil
	}
	ctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	if living {
		if err = r.grant(ctx); err == nil {
			return due, errLeaseReplaced
		}
	} else {
		var errs []error
		for _, lease := range retired {
			errs = append(errs, r.retire(ctx, lease))
		}
		if err = errors.Join(errs...); err == nil && present {
			r.leased(0, 0)
			return due, errLeaseReplaced
		}
	}
	if err == nil {
		return time.Now().Add(backoff.Never), nil
	}
	r.log.Debug("cannot retire a lease yet", "cause", err)
	r.fenceDue = time.Now().Add(r.fencing.Next())
	return r.fenceDue, nil
}

// retire revokes a lease once nothing stands under it but what has been deregistered.
func (r *Registrar) retire(ctx context.Context, lease clientv3.LeaseID) error {
	if lease != r.lease {
		under, err := r.client.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())
		if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && under.TTL <= 0 {
			r.forget(lease)
			return nil
		}
		if err != nil {
			return fmt.Errorf("look up lease %x: %w", int64(lease), err)
		}
		if err := r.vacated(lease); err != nil {
			return err
		}
		for _, key := range under.Keys { // an operator's, who put it under our lease
			if err := r.moveOther(ctx, string(key), lease); err != nil {
				return err
			}
		}
	}
	if err := r.revoke(ctx, lease); err != nil {
		return err
	}
	r.forget(lease)
	return nil
}

// revoke ends a lease. One that etcd does not have has ended already.
func (r *Registrar) revoke(ctx context.Context, lease clientv3.LeaseID) error {
	if _, err := r.client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("revoke lease %x: %w", int64(lease), err)
	}
	return nil
}

// vacated returns why a lease cannot be revoked yet: a registration that lives stands under it.
func (r *Registrar) vacated(lease clientv3.LeaseID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		if !g.gone && g.standing == lease {
			return fmt.Errorf("retire lease %x: %q still stands under it: %w", int64(lease), g.key, cmp.Or(g.state.Err, errNotMoved))
		}
	}
	return nil
}

// moveOther moves a key that others put under a lease of ours to the present one.
func (r *Registrar) moveOther(ctx context.Context, key string, from clientv3.LeaseID) error {
	r.mu.Lock()
	ours := r.regs[key] != nil || r.departed[key]
	r.mu.Unlock()
	if ours {
		return nil
	}
	_, err := r.client.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(key), "=", from)).
		Then(clientv3.OpPut(key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(r.lease))).Commit()
	if err != nil {
		return fmt.Errorf("move %q to lease %x: %w", key, int64(r.lease), err)
	}
	return nil
}

func leaseText(lease clientv3.LeaseID) string { return fmt.Sprintf("%x", int64(lease)) }
