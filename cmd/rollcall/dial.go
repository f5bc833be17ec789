// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
)

// client returns an etcd client configured by the flags. It connects when it is used.
func (a *app) client(opts ...grpc.DialOption) (*clientv3.Client, error) {
	a.refused = new(denials)
	return a.clientAs(a.user, a.password, slices.Concat(a.refused.dialOptions(), []grpc.DialOption{a.rereadPassword()}, opts)...)
}

// clientAs is client for another user.
func (a *app) clientAs(user, password string, opts ...grpc.DialOption) (*clientv3.Client, error) {
	cfg := rollcall.ClientConfig(a.endpoints...)
	cfg.DialOptions = append(cfg.DialOptions, opts...)
	cfg.DialTimeout = a.dialTimeout
	cfg.DialKeepAliveTime = cmp.Or(a.keepAliveTime, cfg.DialKeepAliveTime)
	cfg.DialKeepAliveTimeout = cmp.Or(a.keepAliveTimeout, cfg.DialKeepAliveTimeout)
	cfg.MaxCallSendMsgSize, cfg.MaxCallRecvMsgSize = a.maxRequestBytes, a.maxRecvBytes
	cfg.Username, cfg.Password = user, password
	if user == "" {
		cfg.Token = a.token
	}
	creds, err := a.credentials()
	if err != nil {
		return nil, err
	}
	if creds != nil {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithTransportCredentials(creds))
	}
	client, err := rollcall.NewClient(cfg)
	if err != nil {
		return nil, fail(exitUsage, "--endpoints %s: %v", strings.Join(a.endpoints, ","), err)
	}
	return client, nil
}

// clientOf returns an etcd client of a user whose password etcd accepts. Without a name or a
// password clientv3 would send no token, and the client act as whom --cert names.
func (a *app) clientOf(ctx context.Context, user, password string) (*clientv3.Client, error) {
	if user == "" || password == "" {
		return nil, rpctypes.ErrAuthFailed
	}
	client, err := a.clientAs(user, password)
	if err != nil {
		return nil, err
	}
	if _, err := client.Authenticate(ctx, user, password); err != nil {
		_ = client.Close()
		return nil, err
	}
	return client, nil
}

// talk connects to etcd and runs exchange, both within the deadline.
func (a *app) talk(ctx context.Context, exchange func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := connect(ctx, client); err != nil {
		return err
	}
	return exchange(ctx, client)
}

// connect waits until the client is connected. It fails as soon as every endpoint has failed,
// with the error of the connection; etcd's client would wait until its context ends.
func connect(ctx context.Context, client *clientv3.Client) error {
	conn := client.ActiveConnection()
	for {
		conn.Connect()
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure:
			if err := connectionError(ctx, conn); err != nil {
				return err
			}
		}
		if !conn.WaitForStateChange(ctx, state) {
			if cause := context.Cause(ctx); isSignal(cause) {
				return cause
			}
			return fmt.Errorf("%w: still connecting", rollcall.ErrNoAnswer)
		}
	}
}

// connectionError returns the error with which the connection failed, or nil: a call that does
// not wait for the connection returns that error.
func connectionError(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, Serializable: true, CountOnly: true},
		grpc.WaitForReady(false))
	if status.Code(err) == codes.Unavailable {
		return err
	}
	return nil
}
