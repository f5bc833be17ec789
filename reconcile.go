// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const writeWorkers = 32 // writes under way at once

// reconcile brings every dirty registration to where it should be. It returns when those
// that etcd refuses are due again, and an error that concerns all of them, a lost lease
// before any other. It stops at such an error, so that a lease that is lost meanwhile is
// soon noticed.
func (r *Registrar) reconcile(ctx context.Context) (due time.Time, err error) {
	dirty, due := r.takeDirty()
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
			if errs[i] = r.reconcileOne(ctx, g); concernsAll(errs[i]) {
				stopped.Store(true)
			}
		})
	}
	wg.Wait()
	r.lift(&due)
	for i, e := range errs {
		switch {
		case errors.Is(e, rpctypes.ErrLeaseNotFound):
			return due, e
		case concernsAll(e):
			err = e
		case e != nil:
			due = earlier(due, dirty[i].dueAgain())
		}
	}
	return due, err
}

// lift has those tried again at once that etcd refused for a reason which, as one of them
// shows, is gone.
func (r *Registrar) lift(due *time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lifted) == 0 {
		return
	}
	for _, g := range r.regs {
		if g.dirty && g.state.Err != nil && r.lifted[causeOf(g.state.Err)] {
			g.notBefore, *due = time.Time{}, time.Now()
		}
	}
	clear(r.lifted)
}

// takeDirty returns the registrations that must be looked at now, and counts them as done,
// and when the others are due.
func (r *Registrar) takeDirty() (dirty []*Registration, due time.Time) {
	now := time.Now()
	due = now.Add(backoff.Never)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observeLocked()
	for _, g := range r.regs {
		switch {
		case !g.dirty:
		case now.Before(g.notBefore):
			due = earlier(due, g.notBefore)
		default:
			g.dirty = false
			dirty = append(dirty, g)
		}
	}
	return dirty, due
}

func (r *Registrar) putOff(g *Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.dirty = true
}

// dueAgain returns when a registration that etcd refused is to be tried again.
func (g *Registration) dueAgain() time.Time {
	g.registrar.mu.Lock()
	defer g.registrar.mu.Unlock()
	return g.notBefore
}

// concernsAll reports whether an error tells about the lease or the way to etcd, rather
// than about one key.
func concernsAll(err error) bool {
	return errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, context.Canceled) || etcdkv.IsTemporary(err)
}

func (r *Registrar) reconcileOne(hold context.Context, g *Registration) error {
	ctx, cancel := context.WithTimeout(hold, etcdkv.CallTimeout)
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || errors.Is(err, ErrSuperseded) {
		g.retry.Reset()
		return nil
	}
	g.dirty = true
	if !concernsAll(err) {
		g.notBefore = time.Now().Add(g.retry.Next())
	}
	if hold.Err() == nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) { // else all are interrupted
		r.unwrittenLocked(g, r.explain(err))
	}
	return err
}

// heldLocked returns the leases of this Registrar, the present one last.
func (r *Registrar) heldLocked() []clientv3.LeaseID { return append(slices.Clone(r.former), r.lease) }

// action is what is to be done about a key.
type action int

const (
	actPut   action = iota // write the value under the lease
	actKeep                // nothing
	actYield               // nothing: a successor has it
)

// decide returns what to do about a key. kv is nil where there is none; want is what it
// should hold; held are the leases of this Registrar, the present one last; claimed is set
// once the key has been written by it.
func decide(kv *mvccpb.KeyValue, want []byte, held []clientv3.LeaseID, claimed bool) action {
	if kv == nil {
		return actPut
	}
	lease := clientv3.LeaseID(kv.Lease)
	switch {
	case lease == held[len(held)-1] && bytes.Equal(kv.Value, want):
		return actKeep
	case claimed && lease != clientv3.NoLease && !slices.Contains(held, lease):
		return actYield
	}
	return actPut
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
		lease, held := r.lease, r.heldLocked()
		r.lookLocked(g, kv, held)
		want, wants := g.targetLocked(), g.wants
		act := decide(kv, want, held, g.claimed)
		if act == actPut {
			g.sendLocked(want)
		}
		r.mu.Unlock()
		switch act {
		case actYield:
			r.yielded(g, kv.ModRevision)
			return ErrSuperseded
		case actKeep:
			r.stands(g, want, wants, kv.ModRevision)
			return nil
		}
		done, err := r.write(ctx, g, kv, want, lease)
		if err != nil {
			return fmt.Errorf("write %q: %w", g.key, err)
		}
		if done.Succeeded {
			r.putBack(g, kv)
			r.stands(g, want, wants, done.Header.Revision)
			return nil
		}
		kv = only(done.Responses[0].GetResponseRange().Kvs)
	}
}

// putBack logs that the key of an endpoint that was called registered had been deleted, or
// had been made one that nobody can read.
func (r *Registrar) putBack(g *Registration, kv *mvccpb.KeyValue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.state.Lease == r.lease && (kv == nil || !isEndpoint(kv.Value)) {
		r.noteLocked(slog.LevelWarn, "key was deleted or overwritten; registration put back", g, nil)
	}
}

// write puts a value under the lease, if the key still is what it was looked at as.
func (r *Registrar) write(ctx context.Context, g *Registration, kv *mvccpb.KeyValue, value []byte, lease clientv3.LeaseID) (*clientv3.TxnResponse, error) {
	if kv == nil { // a create could land after the key has been deleted
		r.mu.Lock()
		r.unanswered[g.key] = append(r.unanswered[g.key], lease)
		r.mu.Unlock()
	}
	done, err := r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(g.key), "=", kv.GetModRevision())).
		Then(clientv3.OpPut(g.key, string(value), clientv3.WithLease(lease))).
		Else(clientv3.OpGet(g.key)).Commit()
	if kv == nil && !etcdkv.OutcomeUnknown(err) {
		r.mu.Lock()
		r.answeredLocked(g.key, lease)
		r.mu.Unlock()
	}
	return done, err
}

// answeredLocked takes one create of a key off those that may still land.
func (r *Registrar) answeredLocked(key string, lease clientv3.LeaseID) {
	leases := r.unanswered[key]
	if i := slices.Index(leases, lease); i >= 0 {
		leases = slices.Delete(leases, i, i+1)
	}
	if r.unanswered[key] = leases; len(leases) == 0 {
		delete(r.unanswered, key)
	}
}

// sendLocked notes a write before it is sent.
func (g *Registration) sendLocked(value []byte) {
	g.sent = append(g.sent[max(0, len(g.sent)-mostSent+1):], sentValue{value, g.wants})
}

// sentLocked returns the write that a value in etcd comes from.
func (g *Registration) sentLocked(value []byte) (sentValue, bool) {
	for _, s := range slices.Backward(g.sent) {
		if bytes.Equal(s.value, value) {
			return s, true
		}
	}
	return sentValue{}, false
}

// lookLocked takes in what stands under the key, nil for nothing; held are the leases of
// this Registrar. What differs from what was written is an operator's edit, unless etcd was
// restored from before the last write. A value that is no endpoint is not an edit: it would
// hide the endpoint from everybody.
func (r *Registrar) lookLocked(g *Registration, kv *mvccpb.KeyValue, held []clientv3.LeaseID) {
	g.standing = clientv3.NoLease
	if kv == nil || !isEndpoint(kv.Value) {
		return
	}
	lease := clientv3.LeaseID(kv.Lease)
	if slices.Contains(held, lease) {
		g.standing = lease
		// Of several creates without an answer nobody knows which one this is.
		if kv.Version == 1 && kv.ModRevision != g.revision && countOf(r.unanswered[g.key], lease) == 1 {
			r.answeredLocked(g.key, lease)
		}
	} else if lease != clientv3.NoLease {
		return
	}
	own, written := g.sentLocked(kv.Value)
	switch {
	case !g.claimed && !written:
		return // of an earlier process
	case kv.ModRevision < g.revision, bytes.Equal(kv.Value, g.value):
		return
	case written: // and not answered
		g.base = own.wants
	default:
		if status := statusOf(kv.Value); status != statusOf(g.value) {
			g.status = status
		}
		r.noteLocked(slog.LevelInfo, "an operator has edited the registration", g, nil)
		if addr, _, _ := decodeValue(kv.Value); addr != g.addr {
			r.noteLocked(slog.LevelWarn, "an operator has given the registration another address", g, fmt.Errorf("%s, not %s", addr, g.addr))
		}
	}
	g.value = kv.Value
}

func countOf(leases []clientv3.LeaseID, lease clientv3.LeaseID) (n int) {
	for _, l := range leases {
		if l == lease {
			n++
		}
	}
	return n
}

// targetLocked returns what the key should hold.
func (g *Registration) targetLocked() []byte {
	target, err := mergeEdits(g.base, g.wants, g.value)
	if err != nil { // too large together
		target = g.wants
	}
	if g.status != "" && g.status != statusOf(target) && statusOf(g.wants) != StatusDraining {
		if kept, err := withStatus(target, g.status); err == nil {
			target = kept
		}
	}
	return target
}

// only returns the key of an answer about one, nil where there is none.
func only(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// stands records that etcd holds a value under the lease, written at a revision, which has
// what the program wanted.
func (r *Registrar) stands(g *Registration, value, wants []byte, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again := g.claimed
	g.claimed, g.standing, g.revision = true, r.lease, revision
	g.value, g.base, g.sent = value, wants, nil
	if g.watch != nil {
		g.watch.unseen[g] = true
	}
	if g.pendingLocked() { // set anew meanwhile
		g.dirty = true
		notify(r.wake)
	}
	phase := phaseOf(value)
	if g.state.Err != nil {
		r.lifted[causeOf(g.state.Err)] = true
	}
	switch {
	case !again:
		r.noteLocked(slog.LevelInfo, "registered", g, nil)
	case g.state.Phase == Lost:
		r.noteLocked(slog.LevelInfo, "registered again", g, nil)
	case g.state.Phase != phase:
		r.noteLocked(slog.LevelInfo, map[Phase]string{Registered: "registration is serving", Draining: "registration is draining"}[phase], g, nil)
	case g.state.Err != nil:
		r.noteLocked(slog.LevelInfo, "registration written", g, nil)
	}
	g.setLocked(phase, nil)
}

// yielded records that a successor has the key, written at a revision. The registration
// waits for it to go.
func (r *Registrar) yielded(g *Registration, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.revision = revision
	r.missedLocked(g, ErrSuperseded)
}

// remove takes the endpoint out: first the mark, then the deletion, both only while the
// key is under a lease of this Registrar. (An operator's edit changes its ModRevision and
// must not keep it in; a successor's key has another lease and must not go.) What an
// operator has put without a lease is taken under the lease first, as it is where the
// endpoint lives on. A create that may still land has its lease retired.
func (r *Registrar) remove(ctx context.Context, g *Registration) error {
	for {
		ended, err := r.removeOnce(ctx, g)
		if err != nil {
			return err
		}
		if ended {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	leases := r.unanswered[g.key]
	if g.deleted = true; len(leases) == 0 {
		r.finishLocked(g, nil)
		return nil
	}
	for _, lease := range leases {
		if !slices.Contains(r.retired, lease) {
			r.retired = append(r.retired, lease)
		}
	}
	return nil
}

// removeOnce looks at the key and does the next step of remove. It reports whether nothing of
// this Registrar's is left.
func (r *Registrar) removeOnce(ctx context.Context, g *Registration) (ended bool, err error) {
	resp, err := r.client.Get(ctx, g.key)
	if err != nil {
		return false, fmt.Errorf("look up %q: %w", g.key, err)
	}
	kv := only(resp.Kvs)
	r.mu.Lock()
	held := r.heldLocked()
	r.lookLocked(g, kv, held)
	claimed := g.claimed
	r.mu.Unlock()
	switch {
	case kv == nil:
		return true, nil
	case kv.Lease == 0 && claimed:
		if _, err := r.write(ctx, g, kv, kv.Value, r.lease); err != nil {
			return false, fmt.Errorf("take %q under the lease: %w", g.key, err)
		}
		return false, nil
	case !slices.Contains(held, clientv3.LeaseID(kv.Lease)):
		r.mu.Lock()
		g.taken = true
		r.mu.Unlock()
		return true, nil
	}
	// A full etcd refuses the mark and takes the deletion.
	if err := r.mark(ctx, g, kv); concernsAll(err) && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return false, fmt.Errorf("mark %q as draining: %w", g.key, err)
	}
	done, err := r.client.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(g.key), "=", kv.Lease)).
		Then(clientv3.OpDelete(g.key)).Commit()
	if err != nil {
		return false, fmt.Errorf("delete %q: %w", g.key, err)
	}
	return done.Succeeded, nil
}

// mark sets a key to draining, whatever else it holds.
func (r *Registrar) mark(ctx context.Context, g *Registration, kv *mvccpb.KeyValue) error {
	marked, err := drained(kv.Value)
	if err != nil || bytes.Equal(marked, kv.Value) {
		return nil // what carries no mark goes without
	}
	r.mu.Lock()
	g.sendLocked(marked)
	if wants, err := drained(g.wants); err == nil {
		g.sent[len(g.sent)-1].wants = wants // the mark is no operator's
	}
	r.mu.Unlock()
	_, err = r.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(g.key), "=", kv.ModRevision)).
		Then(clientv3.OpPut(g.key, string(marked), clientv3.WithIgnoreLease())).Commit()
	return err
}
