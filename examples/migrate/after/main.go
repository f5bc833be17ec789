// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command after is the server of the command before, registered by serving.Run.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/serving"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: after ID HOST:PORT ETCD")
	}
	id, addr, etcd := os.Args[1], os.Args[2], os.Args[3]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := rollcall.NewClient(rollcall.ClientConfig(etcd))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	greeter.Register(server, greeter.Named(id))
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, server, lis, client, id, addr); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, server *grpc.Server, lis net.Listener, client *clientv3.Client, id, addr string) error {
	return serving.Run(ctx, server, lis, serving.Options{
		Client:   client,
		Service:  "greeter",
		Endpoint: rollcall.Endpoint{ID: id, Addr: addr},
	})
}
