// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"bytes"
	"cmp"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// txn applies a transaction that checkTxn has passed.
func (w *write) txn(r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	resp := &etcdserverpb.TxnResponse{Succeeded: w.compareAll(r.Compare)}
	ops := r.Failure
	if resp.Succeeded {
		ops = r.Success
	}
	for _, op := range ops {
		if err := w.checkOp(op); err != nil {
			return nil, err
		}
	}
	for _, op := range ops {
		resp.Responses = append(resp.Responses, w.apply(op))
	}
	resp.Header = &etcdserverpb.ResponseHeader{Revision: w.current()}
	return resp, nil
}

// checkOp fails for what the data do not allow, before anything is written.
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
	if max(len(r.Compare), len(r.Success), len(r.Failure)) > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*etcdserverpb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := checkRequestOp(op); err != nil {
				return err
			}
		}
	}
	if overlaps(r.Success) || overlaps(r.Failure) {
		return rpctypes.ErrGRPCDuplicateKey
	}
	return nil
}

func checkRequestOp(op *etcdserverpb.RequestOp) error {
	switch r := op.Request.(type) {
	case *etcdserverpb.RequestOp_RequestRange:
		return checkRange(r.RequestRange)
	case *etcdserverpb.RequestOp_RequestPut:
		return checkPut(r.RequestPut)
	case *etcdserverpb.RequestOp_RequestDeleteRange:
		return checkKey(r.RequestDeleteRange.Key)
	default:
		return status.Error(codes.Unimplemented, "fakeetcd: no transactions within transactions")
	}
}

// overlaps reports whether a key is put twice, or put and deleted.
func overlaps(ops []*etcdserverpb.RequestOp) bool {
	puts := make(map[string]bool)
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if puts[string(p.Key)] {
				return true
			}
			puts[string(p.Key)] = true
		}
	}
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			for key := range puts {
				if inRange(key, d.Key, d.RangeEnd) {
					return true
				}
			}
		}
	}
	return false
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
