// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// write collects the changes of one revision. Reads through it see them.
type write struct {
	*state
	events []*mvccpb.Event
}

func (s *state) begin() *write { return &write{state: s} }

// current is the revision that a read within the write sees.
func (w *write) current() int64 {
	if len(w.events) > 0 {
		return w.revision + 1
	}
	return w.revision
}

// commit makes the changes the latest revision, if there are any.
func (w *write) commit() {
	if len(w.events) == 0 {
		return
	}
	w.revision++
	w.log = append(w.log, commit{revision: w.revision, events: w.events})
}

// checkPut fails for a put that etcd would not accept.
func (w *write) checkPut(r *etcdserverpb.PutRequest) error {
	if _, ok := w.attached[r.Lease]; r.Lease != 0 && !ok {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	if (r.IgnoreValue || r.IgnoreLease) && w.at(string(r.Key), w.current()) == nil {
		return rpctypes.ErrGRPCKeyNotFound
	}
	return nil
}

func (w *write) put(r *etcdserverpb.PutRequest) *etcdserverpb.PutResponse {
	key, revision := string(r.Key), w.revision+1
	prev := w.at(key, revision)
	kv := &mvccpb.KeyValue{
		Key:            []byte(key),
		Value:          append([]byte(nil), r.Value...),
		Lease:          r.Lease,
		CreateRevision: revision,
		ModRevision:    revision,
		Version:        1,
	}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
		w.detach(prev)
		if r.IgnoreValue {
			kv.Value = prev.Value
		}
		if r.IgnoreLease {
			kv.Lease = prev.Lease
		}
	}
	if kv.Lease != 0 {
		w.attached[kv.Lease][key] = struct{}{}
	}
	w.record(key, version{revision: revision, kv: kv})
	w.events = append(w.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv, PrevKv: prev})
	resp := &etcdserverpb.PutResponse{Header: &etcdserverpb.ResponseHeader{Revision: revision}}
	if r.PrevKv {
		resp.PrevKv = cloneKV(prev)
	}
	return resp
}

func (w *write) remove(r *etcdserverpb.DeleteRangeRequest) *etcdserverpb.DeleteRangeResponse {
	gone := w.span(r.Key, r.RangeEnd, w.current())
	for _, kv := range gone {
		w.removeOne(kv)
	}
	resp := &etcdserverpb.DeleteRangeResponse{
		Header:  &etcdserverpb.ResponseHeader{Revision: w.current()},
		Deleted: int64(len(gone)),
	}
	if r.PrevKv {
		resp.PrevKvs = cloneKVs(gone)
	}
	return resp
}

func (w *write) removeOne(kv *mvccpb.KeyValue) {
	revision := w.revision + 1
	w.detach(kv)
	w.record(string(kv.Key), version{revision: revision})
	w.events = append(w.events, &mvccpb.Event{
		Type:   mvccpb.Event_DELETE,
		Kv:     &mvccpb.KeyValue{Key: kv.Key, ModRevision: revision},
		PrevKv: kv,
	})
}

func (w *write) detach(kv *mvccpb.KeyValue) {
	if keys, ok := w.attached[kv.Lease]; ok {
		delete(keys, string(kv.Key))
	}
}

// revoke deletes the lease and its keys, in the order of the keys.
func (w *write) revoke(id int64) {
	for _, key := range w.leaseKeys(id) {
		w.removeOne(w.at(key, w.current()))
	}
	delete(w.attached, id)
}
