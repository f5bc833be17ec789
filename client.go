// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ClientConfig returns a configuration of etcd's client for the given endpoints that
// notices and mends a broken way to etcd in seconds: a ping after 10 s without a
// message, which must be answered in 3 s (a server takes one ping in 5 s at most, and
// none while nothing is under way); reconnecting after 0.1 to 1 s; 3 s for a connection
// to come up. etcd's own client waits up to 120 s and never pings. It logs nothing.
func ClientConfig(endpoints ...string) clientv3.Config {
	return clientv3.Config{
		Endpoints:            endpoints,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	}
}

// NewClient is clientv3.New without its wait: with a user name too it returns at once
// and authenticates when it is first used, so that a process starts while etcd is down.
// Calls that need a new token at the same time share one login.
func NewClient(cfg clientv3.Config) (*clientv3.Client, error) {
	var made atomic.Bool
	var logins sharedLogin
	intercept := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		answer, ok := reply.(*pb.AuthenticateResponse)
		switch {
		case !ok:
			return invoke(ctx, method, req, reply, conn, opts...)
		case !made.Load():
			// clientv3.New asks for a token and fails when there is none to be had. An empty
			// one makes it go on; the first request that is refused for it asks again.
			return nil
		}
		return logins.do(ctx, answer, func() error { return invoke(ctx, method, req, reply, conn, opts...) })
	}
	cfg.DialOptions = append(cfg.DialOptions[:len(cfg.DialOptions):len(cfg.DialOptions)], grpc.WithChainUnaryInterceptor(intercept))
	client, err := clientv3.New(cfg)
	made.Store(true)
	return client, err
}

// sharedLogin has concurrent logins of one client wait for the first of them.
type sharedLogin struct {
	mu    sync.Mutex
	under *login // the one under way, nil where there is none
}

type login struct {
	done  chan struct{}
	token string
	err   error
}

// do logs in, or takes the outcome of the login that is under way, unless that one was only
// given up by its own caller.
func (s *sharedLogin) do(ctx context.Context, reply *pb.AuthenticateResponse, authenticate func() error) error {
	for {
		s.mu.Lock()
		other := s.under
		if other == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		if other.err == nil || status.Code(other.err) != codes.Canceled && status.Code(other.err) != codes.DeadlineExceeded {
			reply.Token = other.token
			return other.err
		}
	}
	own := &login{done: make(chan struct{})}
	s.under = own
	s.mu.Unlock()
	own.err = authenticate()
	own.token = reply.Token
	s.mu.Lock()
	s.under = nil
	s.mu.Unlock()
	close(own.done)
	return own.err
}
