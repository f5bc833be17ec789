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

const writeWorkers = 32 // registrations that are reconciled at once

// reconcileAll reconciles every dirty registration. It returns when those that etcd
// refuses are due again, and an error that concerns all of them, a lost lease before any
// other. It stops at such an error, so that a lost lease is soon noticed.
func (r *Registrar) reconcileAll(ctx context.Context) (due time.Time, err error) {
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
				r.mu.Lock()
				g.dirty = true
				r.mu.Unlock()
				return
			}
			if errs[i] = r.reconcileOne(ctx, g); concernsAll(errs[i]) {
				stopped.Store(true)
			}
		})
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retryClearedLocked() {
		due = time.Now()
	}
	for i, e := range errs {
		switch {
		case errors.Is(e, rpctypes.ErrLeaseNotFound):
			return due, e
		case concernsAll(e):
			err = e
		case e != nil:
			due = backoff.Earlier(due, dirty[i].notBefore)
		}
	}
	return due, err
}

// takeDirty returns the registrations that must be looked at now, and when the others are due.
func (r *Registrar) takeDirty() (dirty []*Registration, due time.Time) {
	now := time.Now()
	due = now.Add(backoff.Never)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		switch {
		case !g.dirty:
		case now.Before(g.notBefore):
			due = backoff.Earlier(due, g.notBefore)
		default:
			g.dirty, g.observed.fresh = false, false
			dirty = append(dirty, g)
		}
	}
	return dirty, due
}

// retryClearedLocked makes registrations due that etcd refused for a cause which has gone,
// as a write of another one has shown. It reports whether there are any.
func (r *Registrar) retryClearedLocked() (due bool) {
	if len(r.cleared) == 0 {
		return false
	}
	for _, g := range r.regs {
		if g.dirty && g.state.Err != nil && r.cleared[causeOf(g.state.Err)] {
			g.notBefore, due = time.Time{}, true
		}
	}
	clear(r.cleared)
	return due
}

// reconcileOne takes steps until the registration's key is as desired, a successor's, or
// refused.
func (r *Registrar) reconcileOne(maintain context.Context, g *Registration) error {
	ctx, cancel := context.WithTimeout(maintain, etcdkv.CallTimeout)
	defer cancel()
	done, err := false, error(nil)
	for !done && err == nil {
		done, err = r.step(ctx, g)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		g.retry.Reset()
		return nil
	}
	g.dirty = true
	if !concernsAll(err) {
		g.notBefore = time.Now().Add(g.retry.Next())
	}
	if maintain.Err() == nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) { // else all are interrupted
		r.failedLocked(g, r.explain(err))
	}
	return err
}

// step takes the next step of a registration and reports whether it was the last one.
func (r *Registrar) step(ctx context.Context, g *Registration) (done bool, err error) {
	r.mu.Lock()
	g.observed.landing = len(r.unanswered[g.key]) > 0
	act, _ := reconcile(g.desired, &g.observed)
	kv, lease, wanted := g.observed.kv, r.lease, g.desired.value
	var value []byte
	switch act {
	case actPut:
		value = g.observed.target(wanted)
		g.observed.sending(value, wanted, kv.GetModRevision())
	case actKeep:
		r.confirmedLocked(g, kv, wanted)
	case actYield:
		g.observed.revision = kv.ModRevision
		r.missingLocked(g, ErrSuperseded)
	case actFence:
		for _, lease := range r.unanswered[g.key] {
			if !slices.Contains(r.retired, lease) {
				r.retired = append(r.retired, lease)
			}
		}
	case actFinish:
		r.finishLocked(g, nil)
	}
	r.mu.Unlock()
	switch act {
	case actRead:
		return false, r.read(ctx, g)
	case actPut:
		return r.put(ctx, g, kv, value, wanted, lease)
	case actAdopt:
		if _, err := r.write(ctx, g, kv, kv.Value, lease); err != nil {
			return false, fmt.Errorf("put %q under the lease: %w", g.key, err)
		}
		return false, r.read(ctx, g)
	case actDelete:
		return false, r.delete(ctx, g, kv)
	}
	return true, nil
}

// read reads the key and observes it.
func (r *Registrar) read(ctx context.Context, g *Registration) error {
	resp, err := r.client.Get(ctx, g.key)
	if err != nil {
		return fmt.Errorf("read %q: %w", g.key, err)
	}
	r.observe(g, only(resp.Kvs))
	return nil
}

// put writes the value if the key is unchanged since it was observed, else it observes the
// key.
func (r *Registrar) put(ctx context.Context, g *Registration, kv *mvccpb.KeyValue, value, wanted []byte, lease clientv3.LeaseID) (done bool, err error) {
	resp, err := r.write(ctx, g, kv, value, lease)
	if !etcdkv.OutcomeUnknown(err) && (err != nil || !resp.Succeeded) {
		r.mu.Lock()
		g.observed.refused()
		r.mu.Unlock()
	}
	if err != nil {
		return false, fmt.Errorf("write %q: %w", g.key, err)
	}
	if !resp.Succeeded {
		r.observe(g, only(resp.Responses[0].GetResponseRange().Kvs))
		return false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.state.Lease == lease && (kv == nil || !isEndpoint(kv.Value)) {
		r.noteLocked(slog.LevelWarn, "key was deleted or overwritten; registration put back", g, nil)
	}
	r.confirmedLocked(g, &mvccpb.KeyValue{Key: []byte(g.key), Value: value, Lease: int64(lease), ModRevision: resp.Header.Revision}, wanted)
	return true, nil
}

// write puts a value under the lease, if the key still is what it was observed as.
func (r *Registrar) write(ctx context.Context, g *Registration, kv *mvccpb.KeyValue, value []byte, lease clientv3.LeaseID) (*clientv3.TxnResponse, error) {
	if kv == nil { // a create may happen after the key has been deleted
		r.mu.Lock()
		r.unanswered[g.key] = append(r.unanswered[g.key], lease)
		r.mu.Unlock()
	}
	resp, err := r.commit(r.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(g.key), "=", kv.GetModRevision())).
		Then(clientv3.OpPut(g.key, string(value), clientv3.WithLease(lease))).
		Else(clientv3.OpGet(g.key)))
	if kv == nil && !etcdkv.OutcomeUnknown(err) {
		r.mu.Lock()
		r.answeredLocked(g.key, lease)
		r.mu.Unlock()
	}
	return resp, err
}

// commit sends a transaction that writes, and counts it.
func (r *Registrar) commit(txn clientv3.Txn) (*clientv3.TxnResponse, error) {
	r.counts.writes.Add(1)
	resp, err := txn.Commit()
	if err != nil {
		r.counts.writeFailures.Add(1)
	}
	return resp, err
}

// delete takes an endpoint out: first the mark, so that watchers can tell that it went on
// purpose, then the deletion, while the key is under the lease that it was found under. An
// operator's edit changes its ModRevision and must not keep it in; a successor's key has
// another lease and must not go.
func (r *Registrar) delete(ctx context.Context, g *Registration, kv *mvccpb.KeyValue) error {
	// A full etcd refuses the mark and takes the deletion.
	if err := r.mark(ctx, g, kv); concernsAll(err) && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("mark %q as draining: %w", g.key, err)
	}
	resp, err := r.commit(r.client.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(g.key), "=", kv.Lease)).
		Then(clientv3.OpDelete(g.key)))
	if err != nil {
		return fmt.Errorf("delete %q: %w", g.key, err)
	}
	if !resp.Succeeded {
		return r.read(ctx, g)
	}
	r.observe(g, nil)
	return nil
}

// mark marks a key as draining and leaves the rest of its value.
func (r *Registrar) mark(ctx context.Context, g *Registration, kv *mvccpb.KeyValue) error {
	marked, err := drained(kv.Value)
	if err != nil || bytes.Equal(marked, kv.Value) {
		return nil // the value cannot be marked, or is already
	}
	r.mu.Lock()
	g.observed.sending(marked, g.desired.value, kv.ModRevision)
	r.mu.Unlock()
	_, err = r.commit(r.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(g.key), "=", kv.ModRevision)).
		Then(clientv3.OpPut(g.key, string(marked), clientv3.WithIgnoreLease())))
	return err
}

// only returns the one key of an answer, or nil.
func only(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// observe records the state of a key in etcd; kv is nil if it is absent.
func (r *Registrar) observe(g *Registration, kv *mvccpb.KeyValue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.keyStateLocked(kv)
	// A new key is a create that was not answered; of several, it is not known which.
	if kv != nil && (state == keyOurs || state == keyFormer) && kv.Version == 1 && kv.ModRevision != g.observed.revision {
		r.answeredOnlyLocked(g.key, clientv3.LeaseID(kv.Lease))
	}
	if !g.observed.observe(kv, state) {
		return
	}
	r.noteLocked(slog.LevelInfo, "an operator has edited the registration", g, nil)
	if addr, _, _ := decodeValue(kv.Value); addr != g.addr {
		r.noteLocked(slog.LevelWarn, "an operator has given the registration another address", g, fmt.Errorf("%s, not %s", addr, g.addr))
	}
}

func (r *Registrar) keyStateLocked(kv *mvccpb.KeyValue) keyState {
	switch lease := clientv3.LeaseID(kv.GetLease()); {
	case kv == nil:
		return keyAbsent
	case lease == clientv3.NoLease:
		return keyUnleased
	case lease == r.lease:
		return keyOurs
	case slices.Contains(r.former, lease):
		return keyFormer
	}
	return keyForeign
}

// answeredLocked records that one create of a key was answered.
func (r *Registrar) answeredLocked(key string, lease clientv3.LeaseID) {
	leases := r.unanswered[key]
	if i := slices.Index(leases, lease); i >= 0 {
		leases = slices.Delete(leases, i, i+1)
	}
	if r.unanswered[key] = leases; len(leases) == 0 {
		delete(r.unanswered, key)
	}
}

// answeredOnlyLocked is answeredLocked if there is just one unanswered create under the lease.
func (r *Registrar) answeredOnlyLocked(key string, lease clientv3.LeaseID) {
	leases := r.unanswered[key]
	if i := slices.Index(leases, lease); i >= 0 && !slices.Contains(leases[i+1:], lease) {
		r.answeredLocked(key, lease)
	}
}
