// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command oldclient calls the greeters that etcd lists, by etcd's own package.
package main

import (
	"log"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall/examples/greeter"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: oldclient ETCD")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}})
	if err != nil {
		log.Fatal(err)
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///greeter", grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	if err != nil {
		log.Fatal(err)
	}
	if greeter.Count(conn, 2, 110, time.Millisecond) > 0 {
		os.Exit(1)
	}
}
