// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command server is the shortest gRPC server that is listed in etcd while it runs.
package main

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/serving"
)

func main() {
	client, err := rollcall.NewClient(rollcall.ClientConfig("127.0.0.1:2379"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, health.NewServer()) // your service here
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serving.ListenAndServe(ctx, srv, "127.0.0.1:50051", serving.Options{Client: client, Service: "my-service"}); err != nil {
		log.Fatal(err)
	}
}
