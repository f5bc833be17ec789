// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	maxBatch = 127     // keys in one transaction: a server takes 128 operations by default, and counts the nesting
	maxBytes = 1 << 20 // of keys and values in one transaction, unless one key has more; a server takes 1.5 MiB by default
)

// step is the next step of a registration.
type step struct {
	g      *Registration
	act    action
	kv     *mvccpb.KeyValue // the key as it was observed before
	value  []byte           // to be put
	wanted []byte           // by the program then
	lease  clientv3.LeaseID // of the Registrar then
}

// create reports whether the step puts a key that there was none of.
func (s *step) create() bool { return s.kv == nil && s.value != nil }

// explain adds to an error what the step was to do.
func (s *step) explain(err error) error {
	verbs := map[action]string{actRead: "read", actPut: "write", actAdopt: "put under the lease", actMark: "mark as draining", actDelete: "delete"}
	return fmt.Errorf("%s %q: %w", verbs[s.act], s.g.key, err)
}

// nextLocked returns the next steps of registrations, as many as one transaction may have, and the
// registrations beyond them. It finishes those whose key is as desired.
func (r *Registrar) nextLocked(batch []*Registration) (steps []step, rest []*Registration) {
	steps = make([]step, 0, len(batch))
	size := 0
	for i, g := range batch {
		size += 3*len(g.key) + max(len(g.desired.value), len(g.observed.current)) // compared, written, and read where that fails
		if len(steps) > 0 && (size > maxBytes || len(steps) == r.batch) {
			return steps, batch[i:]
		}
		if s := r.stepLocked(g); s.act.sent() {
			steps = append(steps, s)
		} else {
			r.endLocked(s)
		}
	}
	return steps, nil
}

// stepLocked returns the next step of a registration.
func (r *Registrar) stepLocked(g *Registration) step {
	g.observed.landing = len(r.unanswered[g.key]) > 0
	act, _ := reconcile(g.desired, &g.observed)
	s := step{g: g, act: act, kv: g.observed.kv, wanted: g.desired.value, lease: r.lease}
	switch act {
	case actPut:
		s.value = g.observed.target(s.wanted)
	case actAdopt:
		s.value = s.kv.Value
	case actMark:
		s.value = g.observed.mark(g.desired)
	}
	if act == actPut || act == actMark {
		g.observed.sending(s.value, s.wanted, s.kv.GetModRevision())
	}
	if s.create() { // it may happen after the key has been deleted
		r.unanswered[g.key] = append(r.unanswered[g.key], s.lease)
	}
	return s
}

// operation returns what the step sends to etcd, about its key alone.
func (s *step) operation() clientv3.Op {
	key := s.g.key
	unchanged := clientv3.Compare(clientv3.ModRevision(key), "=", s.kv.GetModRevision())
	switch read := clientv3.OpGet(key); s.act {
	case actPut, actAdopt:
		return conditional(unchanged, clientv3.OpPut(key, string(s.value), clientv3.WithLease(s.lease)), read)
	case actMark:
		return conditional(unchanged, clientv3.OpPut(key, string(s.value), clientv3.WithIgnoreLease()))
	case actDelete:
		// An operator's edit changes the ModRevision and must not keep the key in; a
		// successor's has another lease and must not go.
		return conditional(clientv3.Compare(clientv3.LeaseValue(key), "=", s.kv.Lease), clientv3.OpDelete(key), read)
	default:
		return read
	}
}

// conditional is a transaction about one key.
func conditional(condition clientv3.Cmp, then clientv3.Op, otherwise ...clientv3.Op) clientv3.Op {
	return clientv3.OpTxn([]clientv3.Cmp{condition}, []clientv3.Op{then}, otherwise)
}

// endLocked takes a last step, about which etcd need not be asked.
func (r *Registrar) endLocked(s step) {
	g := s.g
	g.retry.Reset()
	switch s.act {
	case actKeep:
		r.confirmedLocked(g, s.kv, s.wanted)
	case actYield:
		g.observed.revision = s.kv.ModRevision
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
}

// answer is what etcd has answered to a step.
type answer struct {
	done     bool             // the condition held
	found    *mvccpb.KeyValue // the key where it was read; nil: absent
	revision int64            // of the write
}

// send sends steps in one transaction. Each has a condition of its own, in a transaction within
// the transaction, so that a key that has changed leaves the others alone.
func (r *Registrar) send(ctx context.Context, steps []step) ([]answer, error) {
	ops := make([]clientv3.Op, len(steps))
	writes := uint64(0)
	for i, s := range steps {
		ops[i] = s.operation()
		if s.act != actRead {
			writes++
		}
	}
	all := ops[0]
	if len(ops) > 1 {
		all = clientv3.OpTxn(nil, ops, nil)
	}
	resp, err := r.commit(ctx, writes, all)
	switch {
	case err != nil:
		return nil, err
	case all.IsGet():
		return []answer{{done: true, found: only(resp.Get().Kvs)}}, nil
	}
	txn := resp.Txn()
	if len(ops) == 1 {
		return []answer{answerOf(txn.Succeeded, txn.Responses, txn.Header.Revision)}, nil
	}
	answers := make([]answer, len(ops))
	for i, op := range txn.Responses {
		if nested := op.GetResponseTxn(); nested != nil {
			answers[i] = answerOf(nested.Succeeded, nested.Responses, txn.Header.Revision)
		} else {
			answers[i] = answerOf(true, txn.Responses[i:i+1], txn.Header.Revision)
		}
	}
	return answers, nil
}

func answerOf(done bool, ops []*etcdserverpb.ResponseOp, revision int64) answer {
	a := answer{done: done, revision: revision}
	if len(ops) > 0 {
		a.found = only(ops[0].GetResponseRange().GetKvs())
	}
	return a
}

// commit sends an operation, and counts how many keys it writes.
func (r *Registrar) commit(ctx context.Context, writes uint64, op clientv3.Op) (clientv3.OpResponse, error) {
	r.counts.writes.Add(writes)
	resp, err := r.client.Do(ctx, op)
	if err != nil {
		r.counts.writeFailures.Add(writes)
	}
	return resp, err
}

// doneLocked records the answer to a step, and reports whether it was the last one.
func (r *Registrar) doneLocked(s step, a answer) (last bool) {
	g := s.g
	if s.create() {
		r.answeredLocked(g.key, s.lease)
	}
	put := &mvccpb.KeyValue{Key: []byte(g.key), Value: s.value, Lease: int64(s.lease), ModRevision: a.revision, Version: s.kv.GetVersion() + 1}
	switch {
	case s.act == actMark:
		g.observed.tried = true
	case s.act == actPut && !a.done:
		g.observed.refused()
		r.observeLocked(g, a.found)
	case s.act == actPut:
		if g.state.Lease == s.lease && (s.kv == nil || !isEndpoint(s.kv.Value)) {
			r.noteLocked(slog.LevelWarn, "key was deleted or overwritten; registration put back", g, nil)
		}
		g.retry.Reset()
		r.confirmedLocked(g, put, s.wanted)
		return true
	case s.act == actAdopt && a.done:
		r.observeLocked(g, put)
	default:
		r.observeLocked(g, a.found) // nil where it was deleted
	}
	return false
}

// unansweredLocked records that a step failed: it was refused, or may have happened or still
// happen.
func (r *Registrar) unansweredLocked(s step, err error) {
	if etcdkv.OutcomeUnknown(err) {
		return
	}
	if s.act == actPut || s.act == actMark {
		s.g.observed.refused()
	}
	if s.create() {
		r.answeredLocked(s.g.key, s.lease)
	}
}

// only returns the one key of an answer, or nil.
func only(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// observeLocked records the state of a key in etcd; kv is nil if it is absent.
func (r *Registrar) observeLocked(g *Registration, kv *mvccpb.KeyValue) {
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
