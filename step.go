// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	maxBatch = 128     // keys in one transaction: a server takes 128 operations by default
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
		size += 2*len(g.key) + max(len(g.desired.value), len(g.observed.current)) // compared and written
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

// condition returns what must hold of the step's key in etcd for the step to be taken: it is as it was
// observed.
func (s *step) condition(key []byte) (equal clientv3.Cmp) {
	// clientv3.Compare would copy it once more, which bench scenario "registering" shows.
	c := equal.GetCompare()
	c.Key = key
	if s.act == actDelete {
		// An operator's edit changes the ModRevision and must not keep the key in; a
		// successor's has another lease and must not go.
		c.Target, c.TargetUnion = etcdserverpb.Compare_LEASE, &etcdserverpb.Compare_Lease{Lease: s.kv.Lease}
	} else {
		c.Target, c.TargetUnion = etcdserverpb.Compare_MOD, &etcdserverpb.Compare_ModRevision{ModRevision: s.kv.GetModRevision()}
	}
	return equal
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

// errNotTaken is of steps that were not taken, and whose keys could not be read then: what they were to
// write is not in doubt.
var errNotTaken = errors.New("a key has changed, and nothing was written")

// answer is what etcd has answered to a step.
type answer struct {
	done     bool             // it was taken
	found    *mvccpb.KeyValue // the key where it was read; nil: absent
	revision int64            // of the write
}

// changed reports whether the step was not taken, and its key is not as it was observed, nil for absent.
func (a *answer) changed(observed *mvccpb.KeyValue) bool {
	return !a.done && a.found.GetModRevision() != observed.GetModRevision()
}

// send sends steps in one transaction: all of them are taken or, where the key of one has changed, none,
// and the keys are read: those of many by another transaction, since that is rare.
func (r *Registrar) send(ctx context.Context, steps []step) ([]answer, error) {
	put := clientv3.OpPut("", "", clientv3.WithLease(steps[0].lease)) // all of them have that lease
	prototypes := [...]clientv3.Op{actRead: clientv3.OpGet(""), actPut: put, actAdopt: put,
		actMark: clientv3.OpPut("", "", clientv3.WithIgnoreLease()), actDelete: clientv3.OpDelete("")}
	ops := make([]clientv3.Op, len(steps))
	conditions := make([]clientv3.Cmp, 0, len(steps))
	for i, s := range steps {
		// A copy with another key costs far less than a new operation: bench scenario "registering".
		ops[i] = prototypes[s.act]
		key := []byte(s.g.key)
		ops[i].WithKeyBytes(key)
		ops[i].WithValueBytes(s.value)
		if s.act != actRead {
			conditions = append(conditions, s.condition(key))
		}
	}
	var otherwise []clientv3.Op
	switch {
	case len(conditions) == 0:
		return r.read(ctx, steps)
	case len(steps) == 1:
		otherwise = []clientv3.Op{clientv3.OpGet(steps[0].g.key)}
	}
	resp, err := r.commit(ctx, uint64(len(conditions)), clientv3.OpTxn(conditions, ops, otherwise))
	if err != nil {
		return nil, err
	}
	txn := resp.Txn()
	if len(txn.Responses) == 0 {
		answers, err := r.read(ctx, steps)
		if err != nil {
			err = fmt.Errorf("%w: %w", errNotTaken, err)
		}
		return answers, err
	}
	answers := make([]answer, len(steps))
	for i, op := range txn.Responses {
		answers[i] = answer{done: txn.Succeeded, found: only(op.GetResponseRange().GetKvs()), revision: txn.Header.Revision}
	}
	return answers, nil
}

// read reads the keys of steps.
func (r *Registrar) read(ctx context.Context, steps []step) ([]answer, error) {
	answers := make([]answer, len(steps))
	if len(steps) == 1 {
		resp, err := r.client.Get(ctx, steps[0].g.key)
		if err == nil {
			answers[0].found = only(resp.Kvs)
		}
		return answers, err
	}
	gets := make([]clientv3.Op, len(steps))
	for i, s := range steps {
		gets[i] = clientv3.OpGet(s.g.key)
	}
	resp, err := r.client.Txn(ctx).Then(gets...).Commit()
	if err == nil {
		for i, op := range resp.Responses {
			answers[i].found = only(op.GetResponseRange().GetKvs())
		}
	}
	return answers, err
}

// conditional is a transaction about one key.
func conditional(condition clientv3.Cmp, then clientv3.Op) clientv3.Op {
	return clientv3.OpTxn([]clientv3.Cmp{condition}, []clientv3.Op{then}, nil)
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
	if a.done && s.act != actRead && g.state.Err != nil { // as a deletion, which confirms nothing
		r.cleared[causeOf(g.state.Err)] = true
	}
	if !a.done && (s.act == actPut || s.act == actMark) {
		g.observed.refused()
	}
	put := &mvccpb.KeyValue{Key: []byte(g.key), Value: s.value, Lease: int64(s.lease), ModRevision: a.revision, Version: s.kv.GetVersion() + 1}
	if s.act == actMark && a.changed(s.kv) {
		g.observed.missedMarks++
	}
	switch {
	case a.done && s.act == actMark:
		g.observed.tried = true
	case a.done && s.act == actPut:
		if g.state.Lease == s.lease && (s.kv == nil || !isEndpoint(s.kv.Value)) {
			r.noteLocked(slog.LevelWarn, "key was deleted or overwritten; registration put back", g, nil)
		}
		g.retry.Reset()
		r.confirmedLocked(g, put, s.wanted)
		return true
	case a.done && s.act == actAdopt:
		r.observeLocked(g, put)
	default:
		r.observeLocked(g, a.found) // nil where it was deleted
	}
	return false
}

// unansweredLocked records that a step failed: it was refused, or may have happened or still
// happen.
func (r *Registrar) unansweredLocked(s step, err error) {
	if etcdkv.OutcomeUnknown(err) && !errors.Is(err, errNotTaken) {
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
