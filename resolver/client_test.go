// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// twoServers returns an etcd with servers "a" and "b" of a service, and a client of it.
func twoServers(t *testing.T, service string) (*fakeetcd.Store, *clientv3.Client) {
	t.Helper()
	etcd := fakeetcd.New()
	t.Cleanup(etcd.Close)
	for _, name := range []string{"a", "b"} {
		addr, stop := serveAs(name)
		t.Cleanup(stop)
		etcd.Put(service+"/"+name, fmt.Sprintf(`{"Addr":%q}`, addr))
	}
	conn := etcd.Connect(context.Background())
	t.Cleanup(conn.Close)
	return etcd, conn.Client
}

// becomes fails unless, within 10 s, twenty calls go to as many servers as wanted.
func becomes(t *testing.T, conn *grpc.ClientConn, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		called := make(map[string]bool)
		for range 20 {
			answer, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.WaitForReady(true))
			if err != nil {
				t.Fatalf("%d servers are called, want %d: %v", len(called), want, err)
			}
			called[answer.ServerId] = true
		}
		if len(called) == want {
			return
		}
	}
}

func newClient(t *testing.T, client *clientv3.Client, service string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := resolver.NewClient(client, service, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestNewClient(t *testing.T) {
	const service = `a/b c%2F?zone=x#"1`
	_, client := twoServers(t, service)
	becomes(t, newClient(t, client, service), 2)
	becomes(t, newClient(t, client, service+"/"), 2)
	becomes(t, newClient(t, client, service, grpc.WithDisableServiceConfig()), 2)
}

// What the caller asks for holds while etcd has no service config.
func TestNewClientDefaultServiceConfig(t *testing.T) {
	_, client := twoServers(t, "svc")
	conn := newClient(t, client, "svc", grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{}}]}`))
	for range 5 {
		becomes(t, conn, 1)
		time.Sleep(10 * time.Millisecond)
	}
}

// A service config in etcd that names no policy leaves round_robin in place, and one that
// does replaces it until it is deleted.
func TestNewClientStoredServiceConfig(t *testing.T) {
	etcd, client := twoServers(t, "svc")
	etcd.Put(rollcall.ConfigPrefix+"svc", `{"methodConfig":[{"name":[{}],"timeout":"9s"}]}`)
	conn := newClient(t, client, "svc")
	becomes(t, conn, 2)
	etcd.Put(rollcall.ConfigPrefix+"svc", `{"loadBalancingConfig":[{"pick_first":{}}]}`)
	becomes(t, conn, 1)
	etcd.Delete(rollcall.ConfigPrefix + "svc")
	becomes(t, conn, 2)
}

func TestNewClientInvalid(t *testing.T) {
	_, client := twoServers(t, "svc")
	if _, err := resolver.NewClient(client, "/", grpc.WithTransportCredentials(insecure.NewCredentials())); !errors.As(err, new(*rollcall.InputError)) {
		t.Errorf("a service of slashes: %v, want an InputError", err)
	}
	if _, err := resolver.NewClient(nil, "svc"); err == nil {
		t.Error("a channel without an etcd client")
	}
	if _, err := resolver.NewClient(client, "svc"); err == nil {
		t.Error("a channel without credentials")
	}
}
