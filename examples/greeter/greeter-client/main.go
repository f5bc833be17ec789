// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command greeter-client calls the greeters that etcd lists, and prints who answered how often. It
// exits with 1 if a call failed.
package main

import (
	"flag"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	_ "github.com/rollcall-grpc/rollcall/balancer/weighted" // the policy rollcall_weighted
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/resolver"
)

func main() {
	servers := flag.Int("servers", 1, "how many servers must have answered before calls are counted")
	calls := flag.Int("calls", 110, "how many calls")
	every := flag.Duration("every", time.Millisecond, "time between calls")
	etcd := flag.String("etcd", "127.0.0.1:2379", "address of etcd")
	flag.Parse()
	conn, closeAll, err := dial(*etcd)
	if err != nil {
		log.Fatal(err)
	}
	failed := greeter.Count(conn, *servers, *calls, *every)
	closeAll()
	if failed > 0 {
		os.Exit(1)
	}
}

func dial(etcd string) (conn *grpc.ClientConn, closeAll func(), err error) {
	client, err := rollcall.NewClient(rollcall.ClientConfig(etcd))
	if err != nil {
		return nil, nil, err
	}
	conn, err = resolver.NewClient(client, "greeter", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return conn, func() { conn.Close(); client.Close() }, nil
}
