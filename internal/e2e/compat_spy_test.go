// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// requests are what a client has sent to etcd.
type requests struct {
	ranges     []*pb.RangeRequest
	watches    []*pb.WatchCreateRequest
	leaderless int // watch streams that do not require a leader
}

type requestLog struct {
	mu sync.Mutex
	r  requests
}

func (l *requestLog) seen() requests {
	l.mu.Lock()
	defer l.mu.Unlock()
	return requests{append([]*pb.RangeRequest(nil), l.r.ranges...), append([]*pb.WatchCreateRequest(nil), l.r.watches...), l.r.leaderless}
}

func (l *requestLog) note(req any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch req := req.(type) {
	case *pb.RangeRequest:
		l.r.ranges = append(l.r.ranges, req)
	case *pb.WatchRequest:
		if create := req.GetCreateRequest(); create != nil {
			l.r.watches = append(l.r.watches, create)
		}
	}
}

func (l *requestLog) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	l.note(req)
	return invoke(ctx, method, req, reply, conn, opts...)
}

func (l *requestLog) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	if method == pb.Watch_Watch_FullMethodName && len(md.Get(rpctypes.MetadataRequireLeaderKey)) == 0 {
		l.mu.Lock()
		l.r.leaderless++
		l.mu.Unlock()
	}
	s, err := open(ctx, desc, conn, method, opts...)
	return notedStream{s, l}, err
}

type notedStream struct {
	grpc.ClientStream
	log *requestLog
}

func (s notedStream) SendMsg(m any) error {
	s.log.note(m)
	return s.ClientStream.SendMsg(m)
}

// spy returns a client and what it sends.
func (e *env) spy() (*requestLog, *clientv3.Client) {
	log := &requestLog{}
	return log, e.clientOf(func(cfg *clientv3.Config) {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(log.unary), grpc.WithChainStreamInterceptor(log.stream))
	})
}
