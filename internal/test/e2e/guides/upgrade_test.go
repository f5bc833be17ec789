// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package guides_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
	"github.com/rollcall-grpc/rollcall/serving"
)

// TestUpgradeOfEtcd replaces the binary of member after member, as docs/operate.md has it: the server
// stays listed under its lease, and no call fails.
func TestUpgradeOfEtcd(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "etcd")
	install := func(name string) {
		if err := errors.Join(os.RemoveAll(binary), os.Symlink(etcdtest.Binary(t, name), binary)); err != nil {
			t.Fatal(err)
		}
	}
	install("etcd-3.6")
	etcd := etcdtest.New(t, etcdtest.Options{Members: 3, Etcd: binary})
	client, err := rollcall.NewClient(rollcall.ClientConfig(etcd.Endpoints()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	defer serve(t, client)()
	conn, err := resolver.NewClient(client, "greeter", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := key(t, client)

	install("etcd")
	for _, member := range etcd.Members() {
		member.Stop()
		call(t, conn)
		member.Start()
		etcd.WaitReady()
		call(t, conn)
	}
	for _, member := range etcd.Members() {
		if status, err := client.Status(t.Context(), member.Addr()); err != nil || status.Version < "3.7" {
			t.Errorf("%s: %v, %v", member.Name(), status, err)
		}
	}
	if after := key(t, client); after != before {
		t.Errorf("the key was written anew: %+v, before %+v", after, before)
	}
}

// serve runs a greeter, and returns a function that stops it.
func serve(t *testing.T, client *clientv3.Client) (stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	greeter.Register(server, greeter.Named("blue"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serving.Run(ctx, server, lis, serving.Options{Client: client, Service: "greeter", Endpoint: rollcall.Endpoint{ID: "blue"}})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// written tells writes of a key apart.
type written struct{ revision, lease int64 }

// key returns the write of the server's key, once there is one.
func key(t *testing.T, client *clientv3.Client) written {
	t.Helper()
	for {
		resp, err := client.Get(t.Context(), "greeter/blue")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Count == 1 {
			return written{resp.Kvs[0].ModRevision, resp.Kvs[0].Lease}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// call makes calls for half a second, of which none may fail.
func call(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	for range 50 {
		if name, err := greeter.Greet(t.Context(), conn); err != nil || name != "blue" {
			t.Errorf("%q, %v", name, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
