// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// settle brings every dirty registration to where it should be and returns the error
// that most deserves attention: a lost lease before any other.
func (r *Registrar) settle(ctx context.Context) error {
	r.mu.Lock()
	var dirty []*Registration
	for _, g := range r.regs {
		r.observeLocked(g)
		if g.dirty {
			g.dirty = false
			dirty = append(dirty, g)
		}
	}
	r.mu.Unlock()
	errs := make([]error, len(dirty))
	var wg sync.WaitGroup
	slots := make(chan struct{}, writeWorkers)
	for i, g := range dirty {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = r.settleOne(ctx, g)
		})
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, rpctypes.ErrLeaseNotFound) }); i >= 0 {
		return errs[i]
	}
	return errors.Join(errs...)
}

func (r *Registrar) settleOne(ctx context.Context, g *Registration) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r.mu.Lock()
	gone := g.gone
	r.mu.Unlock()
	var err error
	if gone {
		err = r.remove(ctx, g)
	} else {
		err = r.put(ctx, g)
	}
	if err == nil || errors.Is(err, ErrSuperseded) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g.dirty = true
	if !gone {
		g.missedLocked(err)
	}
	return err
}

// verdicts on what stands in etcd under a registration's key.
type action int

const (
	actPut   action = iota // write the value under the lease
	actMove                // keep the value, put it under the lease that is now held
	actKeep                // nothing to do
	actYield               // a successor has it
)

// decide says what to do about a key. kv is nil where there is none; held are the
// leases of this Registrar, the present one last; write is set when the registration
// has a value that etcd must take; claimed once the key has been written by it.
func decide(kv *mvccpb.KeyValue, held []clientv3.LeaseID, write, claimed bool) action {
	switch {
	case kv == nil, kv.Lease == 0, !claimed:
		return actPut
	case !slices.Contains(held, clientv3.LeaseID(kv.Lease)):
		return actYield
	case write:
		return actPut
	case clientv3.LeaseID(kv.Lease) != held[len(held)-1]:
		return actMove
	}
	return actKeep
}

// put writes the endpoint if it should be: read, decide, write if nobody wrote since.
func (r *Registrar) put(ctx context.Context, g *Registration) error {
	for {
		resp, err := r.client.Get(ctx, g.key)
		if err != nil {
			return fmt.Errorf("look up %q: %w", g.key, err)
		}
		var kv *mvccpb.KeyValue
		var modRevision int64
		if len(resp.Kvs) > 0 {
			kv, modRevision = resp.Kvs[0], resp.Kvs[0].ModRevision
		}
		r.mu.Lock()
		value, write := g.value, g.write
		act := decide(kv, append(slices.Clone(r.former), r.lease), write, g.claimed)
		lease := r.lease
		r.mu.Unlock()
		var op clientv3.Op
		switch act {
		case actYield:
			r.yielded(g, resp.Header.Revision)
			return ErrSuperseded
		case actKeep:
			r.settled(g, kv.Value, resp.Header.Revision)
			return nil
		case actMove:
			op = clientv3.OpPut(g.key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(lease))
			value = kv.Value
		case actPut:
			if kv != nil && clientv3.LeaseID(kv.Lease) == lease && bytes.Equal(kv.Value, value) {
				r.settled(g, value, resp.Header.Revision)
				return nil
			}
			op = clientv3.OpPut(g.key, string(value), clientv3.WithLease(lease))
		}
		done, err := r.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(g.key), "=", modRevision)).Then(op).Commit()
		if err != nil {
			return fmt.Errorf("write %q: %w", g.key, err)
		}
		if done.Succeeded {
			r.settled(g, value, done.Header.Revision)
			return nil
		}
	}
}

// settled records that etcd holds value under the lease as of a revision.
func (r *Registrar) settled(g *Registration, value []byte, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.write && !bytes.Equal(g.value, value) {
		g.dirty = true // set anew meanwhile
		notify(r.wake)
		return
	}
	phase := Registered
	if _, metadata, err := decodeValue(value); err == nil {
		g.value = value
		if parseAttributes(metadata).Draining {
			phase = Draining
		}
	}
	g.write, g.claimed, g.revision = false, true, revision
	if g.state.Phase != phase || g.state.Err != nil || g.state.Lease != r.lease {
		r.log.Info("registered", "key", g.key, "lease", fmt.Sprintf("%x", int64(r.lease)), "phase", phase.String())
	}
	g.setLocked(phase, nil)
}

// yielded records that a successor has the key. The registration waits for it to go.
func (r *Registrar) yielded(g *Registration, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(g.state.Err, ErrSuperseded) {
		r.log.Warn("superseded", "key", g.key)
	}
	g.revision = revision
	g.missedLocked(ErrSuperseded)
}

// remove takes the endpoint out: first the mark, then the deletion, both only while the
// key is under this Registrar's lease. (An operator's edit changes its ModRevision and
// must not keep it in; a successor's key has another lease and must not go.)
func (r *Registrar) remove(ctx context.Context, g *Registration) error {
	r.mu.Lock()
	lease, value := r.lease, g.value
	r.mu.Unlock()
	ours := clientv3.Compare(clientv3.LeaseValue(g.key), "=", lease)
	if lease != 0 {
		if mark, err := drained(value); err == nil && !bytes.Equal(mark, value) {
			put := clientv3.OpPut(g.key, string(mark), clientv3.WithLease(lease))
			if _, err := r.client.Txn(ctx).If(ours).Then(put).Commit(); err != nil {
				return fmt.Errorf("mark %q as draining: %w", g.key, err)
			}
		}
		if _, err := r.client.Txn(ctx).If(ours).Then(clientv3.OpDelete(g.key)).Commit(); err != nil {
			return fmt.Errorf("delete %q: %w", g.key, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finishLocked(g)
	return nil
}

func (r *Registrar) finishLocked(g *Registration) {
	delete(r.regs, g.key)
	g.setLocked(Closed, nil)
	r.log.Info("deregistered", "key", g.key)
}

// observeLocked compares what the watch last saw of a registration's key with what it
// should be.
func (r *Registrar) observeLocked(g *Registration) {
	if g.sub == nil || !g.claimed {
		return
	}
	snap := g.sub.Latest()
	if snap == nil || snap.Stale() != nil || snap.Revision() <= g.revision {
		return
	}
	inst := snap.Instance(g.key)
	switch {
	case inst == nil || inst.Lease != r.lease:
		g.dirty = true
	case !g.write && inst.ModRevision > g.revision:
		g.dirty = true // an operator's edit: look and keep it
	}
}

// audit looks up the registrations that nobody watches, in batches, and says whether
// one of them needs attention.
func (r *Registrar) audit(ctx context.Context) bool {
	const batch = 100
	r.mu.Lock()
	var unwatched []*Registration
	for _, g := range r.regs {
		if g.sub == nil && g.claimed && !g.gone {
			unwatched = append(unwatched, g)
		}
	}
	r.mu.Unlock()
	attention := false
	for chunk := range slices.Chunk(unwatched, batch) {
		ops := make([]clientv3.Op, len(chunk))
		for i, g := range chunk {
			ops[i] = clientv3.OpGet(g.key)
		}
		tctx, cancel := context.WithTimeout(ctx, callTimeout)
		resp, err := r.client.Txn(tctx).Then(ops...).Commit()
		cancel()
		if err != nil {
			r.log.Warn("cannot check registrations", "cause", err)
			return attention
		}
		r.mu.Lock()
		for i, g := range chunk {
			kvs := resp.Responses[i].GetResponseRange().Kvs
			ok := len(kvs) > 0 && clientv3.LeaseID(kvs[0].Lease) == r.lease && bytes.Equal(kvs[0].Value, g.value)
			superseded := len(kvs) > 0 && errors.Is(g.state.Err, ErrSuperseded)
			g.dirty = g.dirty || !ok && !superseded
			attention = attention || g.dirty
		}
		r.mu.Unlock()
	}
	return attention
}
