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

// maxKeyWatches is how many keys have a watch of their own; those beyond share one with their
// whole service.
const maxKeyWatches = 16

// watchLocked has a watch cover the registration's key: at once, or with its whole service by
// watchServices.
func (r *Registrar) watchLocked(g *Registration) {
	switch prefix := g.service + "/"; {
	case r.watches[prefix] == nil && r.keyWatches < maxKeyWatches:
		r.subscribeLocked(g, g.key, etcdkv.SingleKey(g.key))
	case r.watches[prefix] == nil:
		r.unwatched = append(r.unwatched, g)
	default:
		r.subscribeLocked(g, prefix, etcdkv.Prefix(prefix))
	}
}

// watchServices begins the watches of services, unless registrations are to be written first: a
// list of many keys costs less than an event for each.
func (r *Registrar) watchServices() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if slices.ContainsFunc(r.dirty, func(g *Registration) bool { return !now.Before(g.notBefore) && g.state.Phase != Closed }) {
		return
	}
	for _, g := range r.unwatched {
		if g.desired.removed || g.state.Phase == Closed {
			continue
		}
		prefix := g.service + "/"
		if r.subscribeLocked(g, prefix, etcdkv.Prefix(prefix)); g.watch != nil {
			g.watch.unseen[g] = true
		}
	}
	r.unwatched = nil
}

// subscribeLocked has a registration share the watch of some keys. A closed Directory has none:
// verifyKeys looks the key up.
func (r *Registrar) subscribeLocked(g *Registration, name string, keys etcdkv.KeyRange) {
	w := r.watches[name]
	if w == nil {
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
		if snap.NewEpoch(w.last) { // the backup that was restored may have the lease
			for _, g := range r.regs {
				if g.watch == w {
					g.dirtyLocked()
				}
			}
		}
		for _, c := range snap.Diff(w.last) {
			if g := r.regs[c.Key]; g != nil && g.watch == w {
				g.seenLocked(snap, c.New)
			}
		}
		w.last = snap
		for g := range w.unseen {
			if snap.Revision() >= g.observed.revision {
				g.seenLocked(snap, snap.Instance(g.key))
			}
		}
	}
}

// seenLocked compares a key as its watch shows it, nil for none, with what was last read or written:
// now, or once the watch has reached the last write.
func (g *Registration) seenLocked(snap *Snapshot, inst *Instance) {
	if snap.Revision() < g.observed.revision {
		g.watch.unseen[g] = true
		return
	}
	delete(g.watch.unseen, g)
	if g.observed.claimed && (inst == nil || inst.ModRevision != g.observed.revision) {
		g.dirtyLocked()
	}
}

// verifyKeys looks up the registrations that no live watch covers, and reports whether one of
// them has become dirty. Beyond what one transaction reads, the lease tells which keys it still
// has, in one message: a key that is gone, or that another has taken over, is missing. Values that
// an operator edits are then found in turns, one transaction each time, so that the number of
// messages does not grow with that of the keys.
func (r *Registrar) verifyKeys(ctx context.Context) (dirty bool) {
	all, size := r.notCovered()
	if len(all) > size {
		all, dirty = r.verifyLease(ctx, all, size)
	} else {
		r.forgetUnread()
	}
	for chunk := range slices.Chunk(all, size) {
		ops := r.lookUps(chunk)
		tctx, cancel := r.verifyTimeout(ctx)
		resp, err := r.client.Txn(tctx).Then(ops...).Commit()
		cancel()
		if err != nil {
			r.mu.Lock()
			if errors.Is(err, rpctypes.ErrTooManyOps) {
				r.lowerBatchLocked(len(chunk))
			}
			r.mu.Unlock()
			r.Logger().Debug("cannot verify the keys of registrations", "cause", r.explain(err))
			if etcdkv.AccessDenied(err) { // to one of them; others are of other services, perhaps
				continue
			}
			return dirty
		}
		r.mu.Lock()
		for i, g := range chunk {
			if g.changedLocked(only(resp.Responses[i].GetResponseRange().Kvs)) {
				g.dirtyLocked()
			}
			dirty = dirty || g.dirty
		}
		r.mu.Unlock()
	}
	return dirty
}

// lookUps asks for the keys of registrations: without their values, which may be large, but for
// those that have successors, whose leases matter. Etcd 3.7 has no leases in keys alone.
func (r *Registrar) lookUps(all []*Registration) []clientv3.Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops := make([]clientv3.Op, len(all))
	for i, g := range all {
		if errors.Is(g.state.Err, ErrSuperseded) {
			ops[i] = clientv3.OpGet(g.key)
		} else {
			ops[i] = clientv3.OpGet(g.key, clientv3.WithKeysOnly())
		}
	}
	return ops
}

// forgetUnread ends the turns of verifyLease.
func (r *Registrar) forgetUnread() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unread = nil
}

func (r *Registrar) verifyTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(etcdkv.CallTimeout, r.ttl/3))
}

// verifyLease makes those registrations dirty whose keys the lease does not have any more, and
// returns those to be looked up: the ones that have successors, and as many others as still fit.
// Where the role may not read a key of the lease, etcd tells of none, and all are looked up.
func (r *Registrar) verifyLease(ctx context.Context, all []*Registration, size int) (rest []*Registration, dirty bool) {
	ctx, cancel := r.verifyTimeout(ctx)
	defer cancel()
	under, err := r.client.TimeToLive(ctx, r.lease, clientv3.WithAttachedKeys())
	switch {
	case etcdkv.AccessDenied(err):
		return all, false
	case err != nil:
		r.Logger().Debug("cannot list the keys under the lease", "cause", r.explain(err))
		return nil, false
	}
	has := make(map[string]bool, len(under.Keys))
	for _, key := range under.Keys {
		has[string(key)] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var ours []*Registration
	for _, g := range all {
		switch {
		case errors.Is(g.state.Err, ErrSuperseded):
			rest = append(rest, g)
		case has[g.key]:
			ours = append(ours, g)
		default:
			g.dirtyLocked()
			dirty = true
		}
	}
	if len(r.unread) == 0 {
		r.unread = ours
	}
	n := min(size-len(rest)%size, len(r.unread))
	rest, r.unread = append(rest, r.unread[:n]...), r.unread[n:]
	return rest, dirty
}

// notCovered returns the registrations without a live watch, and how many are looked up at once.
func (r *Registrar) notCovered() (all []*Registration, size int) {
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
	return all, r.batch
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
	done, err := r.commit(ctx, 1, conditional(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision), clientv3.OpDelete(key)))
	if err == nil && done.Txn().Succeeded {
		r.Logger().Warn("deleted a deregistered key that came back when etcd was restored", "key", key)
	}
	return err
}
