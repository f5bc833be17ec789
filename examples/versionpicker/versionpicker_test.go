// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package versionpicker_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/examples/versionpicker"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// TestVersions: calls go to the version that they ask for, or else to all.
func TestVersions(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	manager, err := endpoints.NewManager(client, "greeter")
	if err != nil {
		t.Fatal(err)
	}
	for id, version := range map[string]string{"blue": "v1", "red": "v1", "green": "v2"} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		greeter.Register(server, greeter.Named(id))
		go server.Serve(lis)
		t.Cleanup(server.Stop)
		ep := endpoints.Endpoint{Addr: lis.Addr().String(), Metadata: map[string]string{"version": version}}
		if err := manager.AddEndpoint(t.Context(), "greeter/"+id, ep); err != nil {
			t.Fatal(err)
		}
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///greeter", grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+versionpicker.Name+`":{}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := func(ctx context.Context) map[string]int {
		count := make(map[string]int)
		for range 60 {
			name, err := greeter.Greet(ctx, conn, grpc.WaitForReady(true))
			if err != nil {
				t.Fatal(err)
			}
			count[name]++
		}
		return count
	}
	for len(answers(t.Context())) < 3 { // until all are connected
	}
	if got := answers(t.Context()); got["blue"] != 20 || got["red"] != 20 || got["green"] != 20 {
		t.Errorf("calls without a version: %v", got)
	}
	if got := answers(versionpicker.WithVersion(t.Context(), "v1")); got["blue"] != 30 || got["red"] != 30 {
		t.Errorf("calls to v1: %v", got)
	}
	if got := answers(versionpicker.WithVersion(t.Context(), "v2")); got["green"] != 60 {
		t.Errorf("calls to v2: %v", got)
	}
	if got := answers(versionpicker.WithVersion(t.Context(), "v3")); len(got) != 3 {
		t.Errorf("calls to a version that nobody has: %v", got)
	}
}
