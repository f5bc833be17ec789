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
	mostKeyWatches = 16  // keys with a watch of their own; those beyond share one with their whole service
	mostAudited    = 100 // keys that are looked up at once; a server takes 128 operations by default
)

// keyWatch is a watch that tells of the keys of some registrations: of one key, or of a
// whole service where there are many.
type keyWatch struct {
	name string // the key, or the service's prefix
	sub  *Subscription

	// Guarded by Registrar.mu.
	regs   int                    // how many use it
	last   *Snapshot              // that was looked at
	unseen map[*Registration]bool // written, and not looked for in a snapshot since
}

func newKeyWatch(name string) *keyWatch {
	return &keyWatch{name: name, unseen: make(map[*Registration]bool)}
}

// watchLocked has a registration's key covered by a watch.
func (r *Registrar) watchLocked(g *Registration) (err error) {
	prefix := g.service + "/"
	w := r.watches[prefix]
	switch {
	case w != nil:
	case r.keyWatches < mostKeyWatches:
		w = newKeyWatch(g.key)
		if w.sub, err = r.opts.Directory.pull(etcdkv.SingleKey(g.key), g.key, r.wake); err == nil {
			r.keyWatches++
		}
	default:
		w = newKeyWatch(prefix)
		w.sub, err = r.opts.Directory.pull(etcdkv.Prefix(prefix), prefix, r.wake)
	}
	if err != nil {
		return err
	}
	w.regs++
	r.watches[w.name], g.watch = w, w
	return nil
}

// unwatchLocked returns the subscription that nobody needs any more without this
// registration, for the caller to close without the lock; nil where there is none.
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

// observeLocked compares what the watches last saw with what was last read or written:
// whatever differs must be looked at.
func (r *Registrar) observeLocked() {
	for _, w := range r.watches {
		snap := w.sub.Latest()
		if snap == nil || snap == w.last || snap.Staleness() != nil {
			continue
		}
		if w.last != nil && w.last.Epoch() != snap.Epoch() { // restored from a backup, it may be, with the lease in it
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
			if snap.Revision() < g.revision {
				continue
			}
			delete(w.unseen, g)
			inst := snap.Instance(g.key)
			g.dirty = g.dirty || g.claimed && (inst == nil || inst.ModRevision != g.revision)
		}
	}
}

// audit looks up the registrations that no live watch tells of, in batches, and reports
// whether one of them needs attention.
func (r *Registrar) audit(ctx context.Context) bool {
	attention := false
	for chunk := range slices.Chunk(r.unwatched(), r.audited) {
		ops := make([]clientv3.Op, len(chunk))
		for i, g := range chunk {
			ops[i] = clientv3.OpGet(g.key, clientv3.WithKeysOnly())
		}
		tctx, cancel := context.WithTimeout(ctx, min(etcdkv.CallTimeout, r.granted/3))
		resp, err := r.client.Txn(tctx).Then(ops...).Commit()
		cancel()
		if err != nil {
			if errors.Is(err, rpctypes.ErrTooManyOps) {
				r.audited = max(1, r.audited/2) // the limit is the server's to set
			}
			r.log.Debug("cannot check registrations", "cause", r.explain(err))
			return attention
		}
		r.mu.Lock()
		for i, g := range chunk {
			g.dirty = g.dirty || g.strayedLocked(only(resp.Responses[i].GetResponseRange().Kvs))
			attention = attention || g.dirty
		}
		r.mu.Unlock()
	}
	return attention
}

// unwatched returns the registrations without a live watch.
func (r *Registrar) unwatched() (all []*Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		if !g.claimed || g.gone {
			continue
		}
		if g.watch != nil {
			// A watch that has not come to the last write may follow a history that lost it.
			if snap := g.watch.sub.Latest(); snap != nil && snap.Staleness() == nil && snap.Revision() >= g.revision {
				continue
			}
		}
		all = append(all, g)
	}
	return all
}

// strayedLocked reports whether a key, nil for none, is not what it was when it was last
// looked at. A successor's may change as it likes.
func (g *Registration) strayedLocked(kv *mvccpb.KeyValue) bool {
	if kv == nil {
		return true
	}
	if errors.Is(g.state.Err, ErrSuperseded) {
		lease := clientv3.LeaseID(kv.Lease)
		return lease == clientv3.NoLease || lease == g.registrar.lease
	}
	return kv.ModRevision != g.revision
}

// sweepPause returns the time until the next sweep.
func (r *Registrar) sweepPause() time.Duration {
	every := r.opts.Directory.checkPeriod
	if every < 0 {
		return backoff.Never
	}
	return every*3/4 + backoff.Jitter(every/2)
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
	ctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
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
