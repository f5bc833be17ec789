// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// denials notes what etcd refuses a client. etcd's client reduces a refusal to a text without the
// keys, so it is taken from the requests themselves.
type denials struct {
	mu   sync.Mutex
	last *refusal
}

// latest returns the last refusal of keys, nil if there was none. It is nil for nil denials.
func (d *denials) latest() *refusal {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

func (d *denials) note(request any) {
	if r := refusedBy(request); r != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.last = r
	}
}

// dialOptions makes a client note its refusals. etcd's own interceptors are around these.
func (d *denials) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, conn, opts...)
			if status.Code(err) == codes.PermissionDenied {
				if txn, ok := req.(*pb.TxnRequest); ok {
					req = refusedAlone(txn, func(alone *pb.TxnRequest) error {
						return invoke(ctx, method, alone, new(pb.TxnResponse), conn, opts...)
					})
				}
				d.note(req)
			}
			return err
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			return &deniedStream{ClientStream: stream, denials: d}, err
		}),
	}
}

// deniedStream notes the refusal of the last request on a stream: etcd's client sends one, or awaits
// the answer before it sends the next.
type deniedStream struct {
	grpc.ClientStream
	denials *denials
	mu      sync.Mutex
	request any
}

func (s *deniedStream) SendMsg(m any) error {
	if refusedBy(m) != nil {
		s.mu.Lock()
		s.request = m
		s.mu.Unlock()
	}
	return s.ClientStream.SendMsg(m)
}

func (s *deniedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	watch, _ := m.(*pb.WatchResponse)
	if status.Code(err) == codes.PermissionDenied || err == nil && watch.GetCanceled() && strings.Contains(watch.GetCancelReason(), "permission denied") {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.denials.note(s.request)
	}
	return err
}

// refusedBy returns what a request is about, nil if that is no keys. Of a transaction it is the first
// write, or else the first read.
func refusedBy(request any) *refusal {
	switch r := request.(type) {
	case *pb.RangeRequest:
		return &refusal{false, string(r.Key), string(r.RangeEnd)}
	case *pb.PutRequest:
		return &refusal{true, string(r.Key), ""}
	case *pb.DeleteRangeRequest:
		return &refusal{true, string(r.Key), string(r.RangeEnd)}
	case *pb.WatchRequest:
		if create := r.GetCreateRequest(); create != nil {
			return &refusal{false, string(create.Key), string(create.RangeEnd)}
		}
	case *pb.TxnRequest:
		return refusedTxn(r)
	}
	return nil
}

// refusedAlone returns the first part of a transaction that is refused for itself, or all of it. Each part is tried in
// the branch that is not taken: etcd checks permissions for it, too.
func refusedAlone(txn *pb.TxnRequest, try func(*pb.TxnRequest) error) *pb.TxnRequest {
	var parts []*pb.RequestOp
	for _, c := range txn.Compare {
		read := &pb.RangeRequest{Key: c.Key, RangeEnd: c.RangeEnd}
		parts = append(parts, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: read}})
	}
	for _, op := range slices.Concat(txn.Success, txn.Failure, parts) { // a write says more than the read of its condition
		alone := &pb.TxnRequest{Failure: []*pb.RequestOp{op}}
		if status.Code(try(alone)) == codes.PermissionDenied {
			if within := op.GetRequestTxn(); within != nil {
				return refusedAlone(within, try)
			}
			return alone
		}
	}
	return txn
}

func refusedTxn(txn *pb.TxnRequest) (first *refusal) {
	for _, op := range append(append([]*pb.RequestOp(nil), txn.Success...), txn.Failure...) {
		var r *refusal
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			r = refusedBy(op.RequestRange)
		case *pb.RequestOp_RequestPut:
			r = refusedBy(op.RequestPut)
		case *pb.RequestOp_RequestDeleteRange:
			r = refusedBy(op.RequestDeleteRange)
		case *pb.RequestOp_RequestTxn:
			r = refusedTxn(op.RequestTxn)
		}
		if r != nil && (first == nil || r.write && !first.write) {
			first = r
		}
	}
	return first
}
