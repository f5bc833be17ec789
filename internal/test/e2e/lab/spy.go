// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Requests counts what a client has sent to etcd.
type Requests struct {
	Ranges     []*pb.RangeRequest
	Watches    []*pb.WatchCreateRequest
	Leaderless int // watch streams that do not require a leader
	Fragments  int // fragments of watch responses, without the last of each
}

type RequestLog struct {
	mu sync.Mutex
	r  Requests
}

func (l *RequestLog) Seen() Requests {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Requests{append([]*pb.RangeRequest(nil), l.r.Ranges...), append([]*pb.WatchCreateRequest(nil), l.r.Watches...), l.r.Leaderless, l.r.Fragments}
}

func (l *RequestLog) note(message any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m := message.(type) {
	case *pb.RangeRequest:
		l.r.Ranges = append(l.r.Ranges, m)
	case *pb.WatchResponse:
		if m.Fragment {
			l.r.Fragments++
		}
	case *pb.WatchRequest:
		if create := m.GetCreateRequest(); create != nil {
			l.r.Watches = append(l.r.Watches, create)
		}
	}
}

func (l *RequestLog) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	l.note(req)
	return invoke(ctx, method, req, reply, conn, opts...)
}

func (l *RequestLog) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	if method == pb.Watch_Watch_FullMethodName && len(md.Get(rpctypes.MetadataRequireLeaderKey)) == 0 {
		l.mu.Lock()
		l.r.Leaderless++
		l.mu.Unlock()
	}
	s, err := open(ctx, desc, conn, method, opts...)
	return notedStream{s, l}, err
}

type notedStream struct {
	grpc.ClientStream
	log *RequestLog
}

func (s notedStream) SendMsg(m any) error {
	s.log.note(m)
	return s.ClientStream.SendMsg(m)
}

func (s notedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.log.note(m)
	}
	return err
}

// Spy returns a client and the counts of its requests.
func (e *Env) Spy(mutate ...func(*clientv3.Config)) (*RequestLog, *clientv3.Client) {
	log := &RequestLog{}
	return log, e.clientOf(func(cfg *clientv3.Config) {
		for _, m := range mutate {
			m(cfg)
		}
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(log.unary), grpc.WithChainStreamInterceptor(log.stream))
	})
}
