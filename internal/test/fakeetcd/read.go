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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// checkRevision fails for a revision that does not exist. latest is the newest that the answering
// member knows; revision 0 means latest.
func (s *state) checkRevision(revision, latest int64) error {
	switch {
	case revision > latest:
		return rpctypes.ErrGRPCFutureRev
	case revision > 0 && revision < s.compacted:
		return rpctypes.ErrGRPCCompacted
	}
	return nil
}

// read answers a range request that checkRange and checkRevision have passed.
func (s *state) read(r *etcdserverpb.RangeRequest, latest int64) *etcdserverpb.RangeResponse {
	revision := r.Revision
	if revision <= 0 {
		revision = latest
	}
	kvs := s.span(r.Key, r.RangeEnd, revision)
	resp := &etcdserverpb.RangeResponse{
		Header: &etcdserverpb.ResponseHeader{Revision: latest},
		Count:  int64(len(kvs)),
	}
	if r.CountOnly {
		return resp
	}
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool { return filtered(kv, r) })
	order(kvs, r)
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, resp.More = kvs[:r.Limit], true
	}
	resp.Kvs = cloneKVs(kvs)
	if r.KeysOnly {
		for _, kv := range resp.Kvs {
			kv.Value, kv.Lease = nil, 0 // etcd 3.7 answers from its index, which has no leases
		}
	}
	return resp
}

func filtered(kv *mvccpb.KeyValue, r *etcdserverpb.RangeRequest) bool {
	return r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision ||
		r.MinModRevision != 0 && kv.ModRevision < r.MinModRevision ||
		r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision ||
		r.MinCreateRevision != 0 && kv.CreateRevision < r.MinCreateRevision
}

// order sorts keys, which are sorted by key. As in etcd, a target other than the key sorts even if no
// order is given.
func order(kvs []*mvccpb.KeyValue, r *etcdserverpb.RangeRequest) {
	var by func(a, b *mvccpb.KeyValue) int
	switch r.SortTarget {
	case etcdserverpb.RangeRequest_VERSION:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case etcdserverpb.RangeRequest_CREATE:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case etcdserverpb.RangeRequest_MOD:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case etcdserverpb.RangeRequest_VALUE:
		by = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	default:
		by = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	}
	slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortOrder == etcdserverpb.RangeRequest_DESCEND {
			a, b = b, a
		}
		return by(a, b)
	})
}

func checkRange(r *etcdserverpb.RangeRequest) error {
	if _, ok := etcdserverpb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := etcdserverpb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return checkKey(r.Key)
}

// checkRangeStream fails for requests that etcd does not stream.
func checkRangeStream(r *etcdserverpb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if r.SortOrder == etcdserverpb.RangeRequest_DESCEND ||
		r.SortOrder == etcdserverpb.RangeRequest_ASCEND && r.SortTarget != etcdserverpb.RangeRequest_KEY {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

// chunks splits an answer as a stream sends it: header, count and more are in the last chunk.
func chunks(whole *etcdserverpb.RangeResponse, size int) []*etcdserverpb.RangeResponse {
	var out []*etcdserverpb.RangeResponse
	kvs := whole.Kvs
	for len(kvs) > size {
		out = append(out, &etcdserverpb.RangeResponse{Kvs: kvs[:size:size]})
		kvs = kvs[size:]
	}
	return append(out, &etcdserverpb.RangeResponse{Kvs: kvs, Header: whole.Header, Count: whole.Count, More: whole.More})
}
