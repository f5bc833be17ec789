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
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// settle brings every dirty registration to where it should be and returns the error
// that most deserves attention: a lost lease before any other. It stops at an error that
// all others would meet too, so that a lease that is lost meanwhile is soon noticed.
func (r *Registrar) settle(ctx context.Context) error {
	dirty := r.takeDirty()
	errs := make([]error, len(dirty))
	var wg sync.WaitGroup
	var stopped atomic.Bool
	slots := make(chan struct{}, writeWorkers)
	for i, g := range dirty {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if stopped.Load() {
				r.putOff(g)
				return
			}
			if errs[i] = r.settleOne(ctx, g); concernsAll(errs[i]) {
				stopped.Store(true)
			}
		})
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, rpctypes.ErrLeaseNotFound) }); i >= 0 {
		return errs[i]
	}
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// takeDirty returns the registrations that must be looked at and counts them as done.
func (r *Registrar) takeDirty() (dirty []*Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		r.observeLocked(g)
		if g.dirty {
			g.dirty = false
			dirty = append(dirty, g)
		}
	}
	return dirty
}

func (r *Registrar) putOff(g *Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.dirty = true
}

// concernsAll says whether an error tells about the lease or the way to etcd, rather
// than about one key.
func concernsAll(err error) bool {
	return errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, context.Canceled) || passing(err)
}

func (r *Registrar) settleOne(hold context.Context, g *Registration) error {
	ctx, cancel := context.WithTimeout(hold, callTimeout)
	defer cancel()
	r.mu.Lock()
	gone, claimed := g.gone, g.claimed
	r.mu.Unlock()
	var err error
	if gone {
		err = r.remove(ctx, g)
	} else {
		err = r.put(ctx, g, claimed)
	}
	if err == nil || errors.Is(err, ErrSuperseded) {
		return nil
	}
	err = r.explain(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	g.dirty = true
	if !gone && hold.Err() == nil { // else the reason is another, and hold tells it
		g.unwrittenLocked(err)
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
// has a value that etcd must take; claimed once the key has been written by it. What
// is no endpoint is no operator's edit: nobody would see the instance.
func decide(kv *mvccpb.KeyValue, held []clientv3.LeaseID, write, claimed bool) action {
	switch {
	case kv == nil, kv.Lease == 0, !claimed:
		return actPut
	case !slices.Contains(held, clientv3.LeaseID(kv.Lease)):
		return actYield
	case write, !isEndpoint(kv.Value):
		return actPut
	case clientv3.LeaseID(kv.Lease) != held[len(held)-1]:
		return actMove
	}
	return actKeep
}

func isEndpoint(value []byte) bool {
	_, _, err := decodeValue(value)
	return err == nil
}

// put writes the endpoint if it should be: decide by what stands in etcd, write if nobody
// wrote since, else decide again. Without a look the key is at first taken for free.
func (r *Registrar) put(ctx context.Context, g *Registration, look bool) error {
	var kv *mvccpb.KeyValue
	if look {
		resp, err := r.client.Get(ctx, g.key)
		if err != nil {
			return fmt.Errorf("look up %q: %w", g.key, err)
		}
		kv = only(resp.Kvs)
	}
	for {
		r.mu.Lock()
		lease, held := r.lease, append(slices.Clone(r.former), r.lease)
		g.standing = kv != nil && slices.Contains(held, clientv3.LeaseID(kv.Lease)) && isEndpoint(kv.Value)
		if g.standing && g.edit != nil {
			if edited, err := g.edit(kv.Value); err == nil {
				g.value = edited
			}
		}
		value := g.value
		lost := kv.GetModRevision() < g.revision // etcd was restored from before the last write
		act := decide(kv, held, g.write || lost, g.claimed)
		r.mu.Unlock()
		var op clientv3.Op
		switch act {
		case actYield:
			r.yielded(g, kv.ModRevision)
			return ErrSuperseded
		case actKeep:
			r.settled(g, kv.Value, kv.ModRevision)
			return nil
		case actMove:
			op = clientv3.OpPut(g.key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(lease))
			value = kv.Value
		case actPut:
			if kv != nil && clientv3.LeaseID(kv.Lease) == lease && bytes.Equal(kv.Value, value) {
				r.settled(g, value, kv.ModRevision)
				return nil
			}
			op = clientv3.OpPut(g.key, string(value), clientv3.WithLease(lease))
		}
		done, err := r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(g.key), "=", kv.GetModRevision())).
			Then(op).Else(clientv3.OpGet(g.key)).Commit()
		if err != nil {
			return fmt.Errorf("write %q: %w", g.key, err)
		}
		if done.Succeeded {
			r.settled(g, value, done.Header.Revision)
			return nil
		}
		kv = only(done.Responses[0].GetResponseRange().Kvs)
	}
}

// only returns the key of an answer about one, nil where there is none.
func only(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// settled records that etcd holds value under the lease, written at a revision.
func (r *Registrar) settled(g *Registration, value []byte, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.claimed, g.revision = true, revision
	if g.write && !bytes.Equal(g.value, value) {
		g.dirty = true // set anew meanwhile
		notify(r.wake)
		return
	}
	phase := Registered
	if _, metadata, err := decodeValue(value); err == nil && (&Instance{Metadata: metadata}).Draining() {
		phase = Draining
	}
	g.value, g.write, g.edit, g.standing = value, false, nil, true
	if g.state.Phase != phase || g.state.Err != nil || g.state.Lease != r.lease {
		r.log.Info("registered", "key", g.key, "lease", fmt.Sprintf("%x", int64(r.lease)), "phase", phase.String())
	}
	g.setLocked(phase, nil)
}

// yielded records that a successor has the key, written at a revision. The registration
// waits for it to go.
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
	lease := r.lease
	r.mu.Unlock()
	ours := clientv3.Compare(clientv3.LeaseValue(g.key), "=", lease)
	if lease != 0 {
		// A full etcd refuses the mark and takes the deletion.
		if err := r.mark(ctx, g.key, lease); concernsAll(err) && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("mark %q as draining: %w", g.key, err)
		}
		if _, err := r.client.Txn(ctx).If(ours).Then(clientv3.OpDelete(g.key)).Commit(); err != nil {
			return fmt.Errorf("delete %q: %w", g.key, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finishLocked(g, nil)
	return nil
}

// mark sets a key that stands under the lease to draining, whatever else it holds.
func (r *Registrar) mark(ctx context.Context, key string, lease clientv3.LeaseID) error {
	resp, err := r.client.Get(ctx, key)
	if err != nil || len(resp.Kvs) == 0 || clientv3.LeaseID(resp.Kvs[0].Lease) != lease {
		return err
	}
	kv := resp.Kvs[0]
	marked, err := drained(kv.Value)
	if err != nil || bytes.Equal(marked, kv.Value) {
		return nil // what carries no mark goes without
	}
	_, err = r.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)).
		Then(clientv3.OpPut(key, string(marked), clientv3.WithLease(lease))).Commit()
	return err
}

// finishLocked ends a registration. Its key may have another one already.
func (r *Registrar) finishLocked(g *Registration, err error) {
	if r.regs[g.key] == g {
		delete(r.regs, g.key)
	}
	if r.lease != 0 && len(r.departed) < mostDeparted {
		r.departed[g.key] = true
	}
	if g.state.Phase != Closed {
		r.log.Info("deregistered", "key", g.key)
	}
	g.setLocked(Closed, err)
}

// unwatchLocked returns the subscription of a registration that is watched no more, for
// the caller to close without the lock.
func (r *Registrar) unwatchLocked(g *Registration) (sub *Subscription) {
	if g.sub != nil {
		r.watched--
	}
	sub, g.sub = g.sub, nil
	return sub
}
