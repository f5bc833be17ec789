// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command greeter-client calls the greeters that etcd lists, and prints who answered how often. It
// exits with 1 if a call failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	_ "github.com/rollcall-grpc/rollcall/balancer/weighted" // the policy rollcall_weighted
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/resolver"
)

func main() {
	calls := flag.Int("calls", 110, "how many calls")
	every := flag.Duration("every", time.Millisecond, "time between calls")
	etcd := flag.String("etcd", "127.0.0.1:2379", "address of etcd")
	flag.Parse()
	conn, closeAll, err := dial(*etcd)
	if err != nil {
		log.Fatal(err)
	}
	failed := run(conn, *calls, *every)
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

// run makes the calls, after one that waits for a server, and returns how many failed.
func run(conn *grpc.ClientConn, calls int, every time.Duration) (failed int) {
	call := func(opts ...grpc.CallOption) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return greeter.Greet(ctx, conn, opts...)
	}
	if _, err := call(grpc.WaitForReady(true)); err != nil {
		log.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // the first server is connected; let the others be, too
	answered := make(map[string]int)
	for range calls {
		name, err := call()
		if err != nil {
			failed++
			log.Print(err)
		} else {
			answered[name]++
		}
		time.Sleep(every)
	}
	for _, name := range slices.Sorted(maps.Keys(answered)) {
		fmt.Printf("%s: %d calls\n", name, answered[name])
	}
	fmt.Printf("%d failed\n", failed)
	return failed
}
