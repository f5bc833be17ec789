// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command before is a gRPC server that registers itself by etcd's own package and a keepalive loop, as
// etcd's documentation has it; docs/migrate.md turns it into the command beside it.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/examples/greeter"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: before ID HOST:PORT ETCD")
	}
	id, addr, etcd := os.Args[1], os.Args[2], os.Args[3]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}})
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	greeter.Register(server, greeter.Named(id))
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	deregister, err := register(ctx, client, id, addr)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-ctx.Done()
		deregister()
		server.GracefulStop()
	}()
	if err := server.Serve(lis); err != nil {
		log.Fatal(err)
	}
}

func register(ctx context.Context, client *clientv3.Client, id, addr string) (deregister func(), err error) {
	lease, err := client.Grant(ctx, 10)
	if err != nil {
		return nil, err
	}
	manager, err := endpoints.NewManager(client, "greeter")
	if err != nil {
		return nil, err
	}
	if err := manager.AddEndpoint(ctx, "greeter/"+id, endpoints.Endpoint{Addr: addr}, clientv3.WithLease(lease.ID)); err != nil {
		return nil, err
	}
	alive, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return nil, err
	}
	go func() {
		for range alive { // when it is closed, the server is out
		}
	}()
	return func() { _, _ = client.Revoke(context.Background(), lease.ID) }, nil
}
