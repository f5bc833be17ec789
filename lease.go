// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	fleetSpread = 500 * time.Millisecond // a fleet that lost its leases together does not come back together
	maxFormer   = 8                      // earlier leases that are remembered
)

// ensureLease leaves the Registrar with a lease that etcd has: the one it had, if that
// still lives, else a new one.
func (r *Registrar) ensureLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), etcdkv.CallTimeout)
	defer cancel()
	if r.lease != 0 {
		left, err := r.client.TimeToLive(ctx, r.lease)
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("look up lease %x: %w", int64(r.lease), err)
		}
		if err == nil && left.TTL > 0 {
			r.renewed = time.Now().Add(time.Duration(left.TTL)*time.Second - r.ttl)
			return nil
		}
		r.Logger().Debug("lease has expired; registering again under a new one", "lease", leaseText(r.lease))
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
// be removed while there is none went with the lease before, unless there were others: etcd may have
// been restored from a backup that has the key under one of them, so it is looked up.
func (r *Registrar) leased(lease clientv3.LeaseID, ttl time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease != 0 {
		r.former = append(r.former[max(0, len(r.former)-maxFormer+1):], r.lease)
	}
	r.lease, r.ttl, r.leasedAt = lease, ttl, time.Now()
	r.renewed = r.leasedAt
	if lease == 0 {
		clear(r.deregistered)
	}
	for _, g := range r.regs {
		g.retry, g.notBefore = backoff.Backoff{}, time.Time{}
		g.dirtyLocked()
		g.observed.state = r.keyStateLocked(g.observed.kv)
		if g.desired.removed && lease == 0 && len(r.former) == 1 && len(r.unanswered[g.key]) == 0 {
			r.finishLocked(g, nil)
		}
	}
}

// forget records that etcd does not have a lease: no key is under it, and no create that
// was sent under it can happen.
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
		if clientv3.LeaseID(g.observed.kv.GetLease()) == lease {
			g.observed.forget()
			g.dirtyLocked()
			if !g.desired.removed && (g.state.Phase == Registered || g.state.Phase == Draining) {
				r.missingLocked(g, fmt.Errorf("lease %x: %w", int64(lease), rpctypes.ErrLeaseNotFound))
			}
		}
		g.observed.landing = len(r.unanswered[g.key]) > 0
		if act, _ := reconcile(g.desired, &g.observed); act == actFinish {
			r.finishLocked(g, nil)
		}
	}
}

// revoke ends a lease; that etcd does not have it is no error.
func (r *Registrar) revoke(ctx context.Context, lease clientv3.LeaseID) error {
	if _, err := r.client.Revoke(clientv3.WithRequireLeader(ctx), lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("revoke lease %x: %w", int64(lease), err)
	}
	return nil
}

var errNotMoved = errors.New("it has not been moved yet")

// fence makes it impossible that a closed registration comes back: a create that was sent
// under a lease and never answered may happen as long as etcd has that lease. It moves the
// other registrations to another lease, and revokes the one. What fails is due again later.
func (r *Registrar) fence(ctx context.Context) (due time.Time, err error) {
	r.mu.Lock()
	retired := slices.Clone(r.retired)
	present, living := slices.Contains(retired, r.lease), false
	if present {
		for _, g := range r.regs {
			living = living || !g.desired.removed
		}
	}
	r.mu.Unlock()
	if len(retired) == 0 {
		r.fenceRetry, r.fenceDue = backoff.Backoff{}, time.Time{}
		return time.Now().Add(backoff.Never), nil
	}
	if time.Now().Before(r.fenceDue) {
		return r.fenceDue, nil
	}
	ctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	if living {
		if err = r.grant(ctx); err == nil {
			r.counts.leasesReplaced.Add(1)
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
	r.Logger().Debug("cannot retire a lease yet", "cause", err)
	r.fenceDue = time.Now().Add(r.fenceRetry.Next())
	return r.fenceDue, nil
}

// retire revokes a lease once no registration is under it.
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

// vacated returns why a lease cannot be revoked yet: a registration is under it.
func (r *Registrar) vacated(lease clientv3.LeaseID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		if !g.desired.removed && g.observed.lease() == lease {
			return fmt.Errorf("retire lease %x: %q is still under it: %w", int64(lease), g.key, cmp.Or(g.state.Err, errNotMoved))
		}
	}
	return nil
}

// moveOther moves a key that others have put under a lease of ours to the present one.
func (r *Registrar) moveOther(ctx context.Context, key string, from clientv3.LeaseID) error {
	r.mu.Lock()
	ours := r.regs[key] != nil || r.deregistered[key]
	r.mu.Unlock()
	if ours {
		return nil
	}
	_, err := r.commit(ctx, 1, conditional(clientv3.Compare(clientv3.LeaseValue(key), "=", from),
		clientv3.OpPut(key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(r.lease))))
	if err != nil {
		return fmt.Errorf("move %q to lease %x: %w", key, int64(r.lease), err)
	}
	return nil
}
