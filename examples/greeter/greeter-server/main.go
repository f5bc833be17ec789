// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command greeter-server is a gRPC server that is listed in etcd while it runs.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/serving"
)

func main() {
	id := flag.String("id", "blue", "the server's name in etcd")
	addr := flag.String("addr", "127.0.0.1:50051", "where it listens, and is called")
	version := flag.String("version", "v1", "the version that it is listed with")
	etcd := flag.String("etcd", "127.0.0.1:2379", "address of etcd")
	flag.Parse()
	if err := serve(*id, *addr, *version, *etcd); err != nil {
		log.Fatal(err)
	}
}

func serve(id, addr, version, etcd string) error {
	client, err := rollcall.NewClient(rollcall.ClientConfig(etcd))
	if err != nil {
		return err
	}
	defer client.Close()

	server, healthy := grpc.NewServer(), health.NewServer()
	greeter.Register(server, greeter.Named(id+" "+version)) // your service here
	healthpb.RegisterHealthServer(server, healthy)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return serving.ListenAndServe(ctx, server, addr, serving.Options{
		Client:   client,
		Service:  "greeter",
		Health:   healthy,
		Endpoint: rollcall.Endpoint{ID: id, Metadata: map[string]string{"version": version}},
	})
}
