// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	maxKeyWatches = 16  // keys with a watch of their own; those beyond share one with their whole service
	maxBatch      = 100 // keys that are looked up at once; a server takes 128 operations by default
)

// watchLocked subscribes to a watch that covers the registration's key. A closed Directory has
// none: verifyKeys looks the key up.
func (r *Registrar) watchLocked(g *Registration) {
	prefix := g.service + "/"
	w := r.watches[prefix]
	if w == nil {
		name, keys := prefix, etcdkv.Prefix(prefix)
		if r.keyWatches < maxKeyWatches {
			name, keys = g.key, etcdkv.SingleKey(g.key)
		}
		sub, err := r.directory.pull(keys, name, r.wake)
		if err != nil {
			return
		}
		if name == g.key {
			r.keyWatches++
		}
		w = &keyWatch{name: name, sub: sub, unseen: make(map[*Registration]bool)}
		r.watches[name] = w
	}
	w.regs++
	g.watch = w
}

// unwatchLocked returns the subscription that only this registration needed, for the caller to
// close without the lock, or nil.
func (r *Registrar) unwatchLocked(g *Registration) (sub *Subscription) {
	w := g.watch
	if w == nil {
		return nil
	}
	g.watch = nil
	delete(w.unseen, g)
	if w.regs--; w.regs > 0 {
		return nil
	}
	delete(r.watches, w.name)
	if w.name == g.key {
		r.keyWatches--
	}
	return w.sub
}

// observeWatches makes those registrations dirty whose keys, as the watches show them, are not
// as they were last read or written.
func (r *Registrar) observeWatches() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.watches {
		snap := w.sub.Latest()
		if snap == nil || snap == w.last || snap.Staleness() != nil {
			continue
		}
		if w.last != nil && w.last.Epoch() != snap.Epoch() { // the backup that was restored may have the lease
			for _, g := range r.regs {
				g.dirty = g.dirty || g.watch == w
			}
		}
		for _, c := range snap.Diff(w.last) {
			if g := r.regs[c.Key]; g != nil && g.watch == w {
				w.unseen[g] = true
			}
		}
		w.last = snap
		for g := range w.unseen {
			if snap.Revision() < g.observed.revision {
				continue
			}
			delete(w.unseen, g)
			inst := snap.Instance(g.key)
			g.dirty = g.dirty || g.observed.claimed && (inst == nil || inst.ModRevision != g.observed.revision)
		}
	}
}

// verifyKeys looks up the registrations that no live watch covers, in batches, and reports
// whether it has made one of them dirty.
func (r *Registrar) verifyKeys(ctx context.Context) (dirty bool) {
	for chunk := range slices.Chunk(r.unwatched(), r.batch) {
		ops := make([]clientv3.Op, len(chunk))
		for i, g := range chunk {
			ops[i] = clientv3.OpGet(g.key, clientv3.WithKeysOnly())
		}
		tctx, cancel := context.WithTimeout(ctx, min(etcdkv.CallTimeout, r.ttl/3))
		resp, err := r.client.Txn(tctx).Then(ops...).Commit()
		cancel()
		if err != nil {
			if errors.Is(err, rpctypes.ErrTooManyOps) {
				r.batch = max(1, r.batch/2) // the limit is the server's to set
			}
			r.Logger().Debug("cannot verify the keys of registrations", "cause", r.explain(err))
			return dirty
		}
		r.mu.Lock()
		for i, g := range chunk {
			g.dirty = g.dirty || g.changedLocked(only(resp.Responses[i].GetResponseRange().Kvs))
			dirty = dirty || g.dirty
		}
		r.mu.Unlock()
	}
	return dirty
}

// unwatched returns the registrations without a live watch.
func (r *Registrar) unwatched() (all []*Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		if !g.observed.claimed || g.desired.removed {
			continue
		}
		if g.watch != nil {
			// A watch that has not reached the last write may follow an epoch that lost it.
			if snap := g.watch.sub.Latest(); snap != nil && snap.Staleness() == nil && snap.Revision() >= g.observed.revision {
				continue
			}
		}
		all = append(all, g)
	}
	return all
}

// changedLocked reports whether a key, nil for none, is not as it was last observed. That
// of a successor may change.
func (g *Registration) changedLocked(kv *mvccpb.KeyValue) bool {
	if kv == nil {
		return true
	}
	if errors.Is(g.state.Err, ErrSuperseded) {
		lease := clientv3.LeaseID(kv.Lease)
		return lease == clientv3.NoLease || lease == g.registrar.lease
	}
	return kv.ModRevision != g.observed.revision
}

// restoredPause returns the time until deleteRestored is due again.
func (r *Registrar) restoredPause() time.Duration {
	return backoff.Around(r.directory.checkPeriod)
}

// deleteRestored deletes keys that were deregistered and are under the lease again: etcd was
// restored from a backup, and the lease, which lives on for the other registrations, would
// keep them. What others have put under the lease stays.
func (r *Registrar) deleteRestored(ctx context.Context) {
	r.mu.Lock()
	idle := len(r.deregistered) == 0
	r.mu.Unlock()
	if idle {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	under, err := r.client.TimeToLive(ctx, r.lease, clientv3.WithAttachedKeys())
	if err != nil {
		r.Logger().Debug("cannot list the keys under the lease", "cause", err)
		return
	}
	for _, key := range under.Keys {
		if err := r.deleteRestoredKey(ctx, string(key)); err != nil {
			r.Logger().Warn("cannot delete a deregistered key that came back when etcd was restored", "key", string(key), "cause", err)
		}
	}
}

func (r *Registrar) deleteRestoredKey(ctx context.Context, key string) error {
	deregistered := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.deregistered[key] && r.regs[key] == nil
	}
	if !deregistered() {
		return nil
	}
	resp, err := r.client.Get(ctx, key)
	if err != nil || len(resp.Kvs) == 0 || clientv3.LeaseID(resp.Kvs[0].Lease) != r.lease || !deregistered() {
		return err
	}
	done, err := r.commit(r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpDelete(key)))
	if err == nil && done.Succeeded {
		r.Logger().Warn("deleted a deregistered key that came back when etcd was restored", "key", key)
	}
	return err
}
