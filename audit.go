// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// observeLocked compares what the watch last saw of a registration's key with what it
// should be.
func (r *Registrar) observeLocked(g *Registration) {
	if g.sub == nil || !g.claimed {
		return
	}
	snap := g.sub.Latest()
	if snap == nil || snap.Stale() != nil {
		return
	}
	if snap.History() != g.history { // restored from a backup, it may be, with the lease in it
		g.history, g.dirty = snap.History(), true
		return
	}
	if snap.Revision() < g.revision {
		return
	}
	// Whatever differs from what was last looked at: an operator's edit, which is kept, or
	// what a restored etcd has instead.
	if inst := snap.Instance(g.key); inst == nil || inst.ModRevision != g.revision {
		g.dirty = true
	}
}

// audit looks up the registrations that no live watch tells of, in batches, and says
// whether one of them needs attention.
func (r *Registrar) audit(ctx context.Context) bool {
	attention := false
	for chunk := range slices.Chunk(r.unseen(), r.audited) {
		ops := make([]clientv3.Op, len(chunk))
		for i, g := range chunk {
			ops[i] = clientv3.OpGet(g.key)
		}
		tctx, cancel := context.WithTimeout(ctx, min(callTimeout, r.granted/3))
		resp, err := r.client.Txn(tctx).Then(ops...).Commit()
		cancel()
		if err != nil {
			if errors.Is(err, rpctypes.ErrTooManyOps) {
				r.audited = max(1, r.audited/2) // the limit is the server's to set
			}
			r.log.Warn("cannot check registrations", "cause", err)
			return attention
		}
		r.mu.Lock()
		for i, g := range chunk {
			g.dirty = g.dirty || r.strayedLocked(g, resp.Responses[i].GetResponseRange().Kvs)
			attention = attention || g.dirty
		}
		r.mu.Unlock()
	}
	return attention
}

// unseen returns the registrations without a live watch.
func (r *Registrar) unseen() (unseen []*Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		if !g.claimed || g.gone {
			continue
		}
		if g.sub != nil {
			// A watch that has not come to the last write may follow a history that lost it.
			if snap := g.sub.Latest(); snap != nil && snap.Stale() == nil && snap.Revision() >= g.revision {
				continue
			}
		}
		unseen = append(unseen, g)
	}
	return unseen
}

// strayedLocked says whether a key is not what it was when it was last settled.
func (r *Registrar) strayedLocked(g *Registration, kvs []*mvccpb.KeyValue) bool {
	if len(kvs) == 0 {
		return true
	}
	lease := clientv3.LeaseID(kvs[0].Lease)
	if errors.Is(g.state.Err, ErrSuperseded) {
		return lease == 0 || lease == r.lease
	}
	return lease != r.lease || !bytes.Equal(kvs[0].Value, g.value)
}

// sweepPause returns the time until the next sweep.
func (r *Registrar) sweepPause() time.Duration {
	every := r.opts.Directory.auditEvery
	if every < 0 {
		return never
	}
	return every*3/4 + jitter(every/2)
}

// sweep deletes what was deregistered and stands under the lease again: etcd was restored
// from a backup, and the lease, which lives on for the other registrations, would keep it
// there. What others put under the lease is theirs.
func (r *Registrar) sweep(ctx context.Context) {
	r.mu.Lock()
	idle := len(r.departed) == 0
	r.mu.Unlock()
	if idle {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	under, err := r.client.TimeToLive(ctx, r.lease, clientv3.WithAttachedKeys())
	if err != nil {
		r.log.Debug("cannot look up what stands under the lease", "cause", err)
		return
	}
	for _, key := range under.Keys {
		if err := r.sweepKey(ctx, string(key)); err != nil {
			r.log.Warn("cannot delete what was deregistered", "key", string(key), "cause", err)
		}
	}
}

func (r *Registrar) sweepKey(ctx context.Context, key string) error {
	left := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.departed[key] && r.regs[key] == nil
	}
	if !left() {
		return nil
	}
	resp, err := r.client.Get(ctx, key)
	if err != nil || len(resp.Kvs) == 0 || clientv3.LeaseID(resp.Kvs[0].Lease) != r.lease || !left() {
		return err
	}
	done, err := r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpDelete(key)).Commit()
	if err == nil && done.Succeeded {
		r.log.Warn("deleted what etcd held again after it was deregistered", "key", key)
	}
	return err
}
