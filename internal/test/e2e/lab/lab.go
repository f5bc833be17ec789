// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// WaitMost bounds every wait of a test; it is not a promise. Tests assert order and convergence, and
// log times.
const WaitMost = 60 * time.Second

// Context ends with the test, and after WaitMost.
func Context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), WaitMost)
	t.Cleanup(cancel)
	return ctx
}

// CleanupContext returns a context for the cleanup of a test, when etcd may be gone.
func CleanupContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Client is a client with Rollcall's defaults, closed when the test ends.
func Client(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	return ClientOf(t, rollcall.ClientConfig(endpoints...))
}

func ClientOf(t *testing.T, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	client, err := rollcall.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// Put writes an endpoint by id.
func Put(t *testing.T, client *clientv3.Client, service, id string, metadata any) int64 {
	t.Helper()
	value, err := rollcall.Encode(AddrOf(id), metadata)
	if err != nil {
		t.Fatal(err)
	}
	return PutValue(t, client, rollcall.Key(service, id), string(value))
}

// PutValue writes a key, and tries again if an election makes it fail.
func PutValue(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	ctx := Context(t)
	for {
		resp, err := client.Put(ctx, key, value)
		if err == nil {
			return resp.Header.Revision
		}
		if ctx.Err() != nil || status.Code(err) == codes.InvalidArgument {
			t.Fatal(err)
		}
	}
}

func Remove(t *testing.T, client *clientv3.Client, key string) {
	t.Helper()
	if _, err := client.Delete(Context(t), key); err != nil {
		t.Fatal(err)
	}
}

// Compact compacts all revisions before the present one.
func Compact(t *testing.T, client *clientv3.Client) {
	t.Helper()
	resp, err := client.Get(Context(t), "x")
	if err == nil {
		_, err = client.Compact(Context(t), resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// AddrOf returns an arbitrary address that is unique for the id.
func AddrOf(id string) string { return "host-" + id + ":80" }

// Dial returns a channel that uses Rollcall's builder; opts come last.
func Dial(t *testing.T, client *clientv3.Client, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	b, err := resolver.NewBuilder(client)
	if err != nil {
		t.Fatal(err)
	}
	all := []grpc.DialOption{grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials())}
	conn, err := grpc.NewClient(target, append(all, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Call makes one call that may take 20 s.
func Call(t *testing.T, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return CallNamed(ctx, conn, opts...)
}

// Heals calls until a call succeeds.
func Heals(t *testing.T, conn *grpc.ClientConn) string {
	t.Helper()
	began := time.Now()
	for {
		name, err := Call(t, conn)
		if err == nil {
			return name
		}
		if time.Since(began) > WaitMost {
			t.Fatalf("calls still fail: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Mute accepts connections and never answers.
func Mute(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var conns []net.Conn
		for {
			conn, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Close()
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// WithAuth turns authentication on, with root and a user "reader" whose role "reader" has no
// permissions yet.
func WithAuth(t *testing.T, etcd *etcdtest.Cluster) (root *clientv3.Client) {
	t.Helper()
	ctx := Context(t)
	admin := etcd.Client(t)
	for _, err := range []error{
		second(admin.RoleAdd(ctx, "root")), second(admin.UserAdd(ctx, "root", "root-pw")), second(admin.UserGrantRole(ctx, "root", "root")),
		second(admin.RoleAdd(ctx, "reader")), second(admin.UserAdd(ctx, "reader", "reader-pw")), second(admin.UserGrantRole(ctx, "reader", "reader")),
		second(admin.AuthEnable(ctx)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return etcd.Client(t, func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "root", "root-pw" })
}

func second[T any](_ T, err error) error { return err }
