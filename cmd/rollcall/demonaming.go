// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall/resolver"
)

// naming is a package that the demo registers and resolves with.
type naming struct {
	name    string
	service string
	dial    func(s *stage) (conn *grpc.ClientConn, closeConn func(), err error)
}

var (
	rollcallNaming = naming{"rollcall", demoService, dialGreeter}
	etcdNaming     = naming{"etcd", demoServiceByEtcd, dialGreeterByEtcd}
)

func dialGreeter(s *stage) (conn *grpc.ClientConn, closeConn func(), err error) {
	conn, err = resolver.NewClient(s.client, demoService, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { _ = conn.Close() }, nil
}

// dialGreeterByEtcd uses etcd's package and client as their documentation shows.
func dialGreeterByEtcd(s *stage) (conn *grpc.ClientConn, closeConn func(), err error) {
	client, err := etcdClientOf(s.lab.endpoint)
	if err != nil {
		return nil, nil, err
	}
	builder, err := etcdresolver.NewBuilder(client)
	if err == nil {
		conn, err = grpc.NewClient("etcd:///"+demoServiceByEtcd, grpc.WithResolvers(builder),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	}
	if err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return conn, func() {
		_ = conn.Close()
		_ = client.Close()
	}, nil
}

func etcdClientOf(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

// serveGreeterByEtcd registers as etcd's documentation shows: a lease that is kept alive, and an
// endpoint under it, which is deleted before the server stops.
func (a *app) serveGreeterByEtcd(ctx context.Context, srv *grpc.Server, lis net.Listener, name string, ttl time.Duration) error {
	client, err := etcdClientOf(a.endpoints...)
	if err != nil {
		return err
	}
	defer client.Close()
	lease, err := client.Grant(ctx, wholeSeconds(ttl))
	if err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range alive { // until the lease is lost, which nobody mends
		}
	}()
	manager, err := endpoints.NewManager(client, demoServiceByEtcd)
	if err != nil {
		return err
	}
	key := demoServiceByEtcd + "/" + name
	if err := manager.AddEndpoint(ctx, key, endpoints.Endpoint{Addr: lis.Addr().String()}, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.dialTimeout)
	defer cancel()
	if err := manager.DeleteEndpoint(leaving, key); err != nil {
		return err
	}
	srv.GracefulStop()
	return <-served
}
