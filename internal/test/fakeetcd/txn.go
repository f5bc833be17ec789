// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"bytes"
	"cmp"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// txn applies a transaction that checkTxn has passed.
func (w *write) txn(r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	path := make(map[*etcdserverpb.TxnRequest]bool)
	w.compare(r, path)
	if err := w.check(r, path); err != nil {
		return nil, err
	}
	return w.applyTxn(r, path), nil
}

// readOnly reports whether a transaction can only read. As in etcd, one with another transaction
// within it counts as a write.
func readOnly(r *etcdserverpb.TxnRequest) bool {
	return !slices.ContainsFunc(slices.Concat(r.Success, r.Failure), func(op *etcdserverpb.RequestOp) bool { return op.GetRequestRange() == nil })
}

// compare decides for a transaction, and for those within it that it takes, whether they succeed:
// before anything is written.
func (w *write) compare(r *etcdserverpb.TxnRequest, path map[*etcdserverpb.TxnRequest]bool) {
	path[r] = w.compareAll(r.Compare)
	for _, op := range taken(r, path) {
		if nested := op.GetRequestTxn(); nested != nil {
			w.compare(nested, path)
		}
	}
}

func taken(r *etcdserverpb.TxnRequest, path map[*etcdserverpb.TxnRequest]bool) []*etcdserverpb.RequestOp {
	if path[r] {
		return r.Success
	}
	return r.Failure
}

// check fails for what the data do not allow, before anything is written.
func (w *write) check(r *etcdserverpb.TxnRequest, path map[*etcdserverpb.TxnRequest]bool) error {
	for _, op := range taken(r, path) {
		err := w.checkOp(op)
		if nested := op.GetRequestTxn(); nested != nil {
			err = w.check(nested, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *write) applyTxn(r *etcdserverpb.TxnRequest, path map[*etcdserverpb.TxnRequest]bool) *etcdserverpb.TxnResponse {
	resp := &etcdserverpb.TxnResponse{Succeeded: path[r]}
	for _, op := range taken(r, path) {
		if nested := op.GetRequestTxn(); nested != nil {
			got := &etcdserverpb.ResponseOp_ResponseTxn{ResponseTxn: w.applyTxn(nested, path)}
			resp.Responses = append(resp.Responses, &etcdserverpb.ResponseOp{Response: got})
		} else {
			resp.Responses = append(resp.Responses, w.apply(op))
		}
	}
	resp.Header = &etcdserverpb.ResponseHeader{Revision: w.current()}
	return resp
}

func (w *write) checkOp(op *etcdserverpb.RequestOp) error {
	switch {
	case op.GetRequestPut() != nil:
		return w.checkPut(op.GetRequestPut())
	case op.GetRequestRange() != nil:
		return w.checkRevision(op.GetRequestRange().Revision, w.revision)
	}
	return nil
}

func (w *write) apply(op *etcdserverpb.RequestOp) *etcdserverpb.ResponseOp {
	switch r := op.Request.(type) {
	case *etcdserverpb.RequestOp_RequestPut:
		return &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponsePut{ResponsePut: w.put(r.RequestPut)}}
	case *etcdserverpb.RequestOp_RequestDeleteRange:
		return &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: w.remove(r.RequestDeleteRange)}}
	default:
		got := w.read(op.GetRequestRange(), w.current())
		return &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseRange{ResponseRange: got}}
	}
}

func (w *write) compareAll(cmps []*etcdserverpb.Compare) bool {
	for _, c := range cmps {
		kvs := w.span(c.Key, c.RangeEnd, w.revision)
		if len(kvs) == 0 {
			// The key does not exist: a value compares as false, and numbers are 0.
			if c.Target == etcdserverpb.Compare_VALUE || !compareOne(c, &mvccpb.KeyValue{}) {
				return false
			}
		}
		for _, kv := range kvs {
			if !compareOne(c, kv) {
				return false
			}
		}
	}
	return true
}

func compareOne(c *etcdserverpb.Compare, kv *mvccpb.KeyValue) bool {
	var got int
	switch c.Target {
	case etcdserverpb.Compare_VALUE:
		got = bytes.Compare(kv.Value, c.GetValue())
	case etcdserverpb.Compare_CREATE:
		got = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case etcdserverpb.Compare_MOD:
		got = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case etcdserverpb.Compare_VERSION:
		got = cmp.Compare(kv.Version, c.GetVersion())
	case etcdserverpb.Compare_LEASE:
		got = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case etcdserverpb.Compare_EQUAL:
		return got == 0
	case etcdserverpb.Compare_NOT_EQUAL:
		return got != 0
	case etcdserverpb.Compare_GREATER:
		return got > 0
	default:
		return got < 0
	}
}

// checkTxn fails for transactions that are invalid whatever the data are.
func checkTxn(r *etcdserverpb.TxnRequest, maxOps int) error {
	if err := checkTxnOps(r, maxOps); err != nil {
		return err
	}
	if _, err := changed(r.Success); err != nil {
		return err
	}
	_, err := changed(r.Failure)
	return err
}

// checkTxnOps checks the operations of a transaction; those within it may have fewer.
func checkTxnOps(r *etcdserverpb.TxnRequest, maxOps int) error {
	count := max(len(r.Compare), len(r.Success), len(r.Failure))
	if count > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*etcdserverpb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := checkRequestOp(op, maxOps-count); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkRequestOp(op *etcdserverpb.RequestOp, maxOps int) error {
	switch r := op.Request.(type) {
	case *etcdserverpb.RequestOp_RequestRange:
		return checkRange(r.RequestRange)
	case *etcdserverpb.RequestOp_RequestPut:
		return checkPut(r.RequestPut)
	case *etcdserverpb.RequestOp_RequestDeleteRange:
		return checkKey(r.RequestDeleteRange.Key)
	case *etcdserverpb.RequestOp_RequestTxn:
		return checkTxnOps(r.RequestTxn, maxOps)
	default:
		return rpctypes.ErrGRPCKeyNotFound
	}
}

// changes are what operations put and delete.
type changes struct {
	puts    map[string]bool
	deletes []*etcdserverpb.DeleteRangeRequest
}

func (c *changes) deleted(key string) bool {
	return slices.ContainsFunc(c.deletes, func(d *etcdserverpb.DeleteRangeRequest) bool { return inRange(key, d.Key, d.RangeEnd) })
}

// changed returns what operations put and delete, with the transactions among them. It fails if a
// key is put twice, or put and deleted: both branches of a transaction may put the same key.
func changed(ops []*etcdserverpb.RequestOp) (all changes, err error) {
	all.puts = make(map[string]bool)
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			all.deletes = append(all.deletes, d)
		}
	}
	add := func(key string, safe bool) error {
		if all.puts[key] && !safe || all.deleted(key) {
			return rpctypes.ErrGRPCDuplicateKey
		}
		all.puts[key] = true
		return nil
	}
	for _, op := range ops {
		nested := op.GetRequestTxn()
		if nested == nil {
			continue
		}
		then, err := changed(nested.Success)
		if err != nil {
			return all, err
		}
		otherwise, err := changed(nested.Failure)
		if err != nil {
			return all, err
		}
		for key := range then.puts {
			if err := add(key, false); err != nil {
				return all, err
			}
		}
		for key := range otherwise.puts {
			if err := add(key, then.puts[key]); err != nil {
				return all, err
			}
		}
		all.deletes = slices.Concat(all.deletes, then.deletes, otherwise.deletes)
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if err := add(string(p.Key), false); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func checkPut(r *etcdserverpb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkKey(key []byte) error {
	if len(key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}
