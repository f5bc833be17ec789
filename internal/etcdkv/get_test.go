// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestGet(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault func(conn *fakeetcd.Conn)
		bound time.Duration // of the caller's context; 0: none
		want  error
		after time.Duration
	}{
		{"answer", func(*fakeetcd.Conn) {}, 0, nil, 0},
		{"refusal", func(c *fakeetcd.Conn) { c.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied) }, 0, rpctypes.ErrPermissionDenied, 0},
		{"silence", (*fakeetcd.Conn).Cut, 0, ErrNoAnswer, CallTimeout},
		{"the caller's deadline", (*fakeetcd.Conn).Cut, time.Second, context.DeadlineExceeded, time.Second},
		{"closed client", (*fakeetcd.Conn).Close, 0, ErrClientClosed, 0},
		{"client closed meanwhile", func(c *fakeetcd.Conn) { c.Cut(); time.AfterFunc(time.Second, c.Close) }, 0, ErrClientClosed, time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				store.Put("a", "1")
				row.fault(conn)
				ctx := t.Context()
				if row.bound > 0 {
					bounded, cancel := context.WithTimeout(ctx, row.bound)
					defer cancel()
					ctx = bounded
				}
				began := time.Now()
				resp, err := Get(ctx, conn.Client, "a")
				if !errors.Is(err, row.want) || time.Since(began) != row.after {
					t.Errorf("got %v after %v, want %v after %v", err, time.Since(began), row.want, row.after)
				}
				if err == nil && (len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "1") {
					t.Errorf("got %v", resp.Kvs)
				}
			})
		})
	}
}

// TestNoDeadlineIsSent: gRPC sends what deadline a context has, and only the caller's is worth it.
func TestNoDeadlineIsSent(t *testing.T) {
	bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
		calls, sent := 0, 0
		conn.SetHook(func(ctx context.Context, _ fakeetcd.Call) error {
			calls++
			if _, ok := ctx.Deadline(); ok {
				sent++
			}
			return nil
		})
		ask := func(ctx context.Context) {
			if _, err := Get(ctx, conn.Client, "a"); err != nil {
				t.Error(err)
			}
			if _, err := FirstPages(ctx, conn.Client, []KeyRange{Prefix("a")}); err != nil {
				t.Error(err)
			}
		}
		if ask(t.Context()); calls != 2 || sent != 0 {
			t.Errorf("%d of %d calls were sent a deadline, want none of two", sent, calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if ask(ctx); calls != 4 || sent != 2 {
			t.Errorf("%d of %d calls were sent a deadline, want the caller's twice", sent, calls)
		}
	})
}

func TestGetOfACancelledCaller(t *testing.T) {
	bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Get(ctx, conn.Client, "a"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoAnswer) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

// TestDisconnected has a client on a real gRPC connection, whose dials fail or hang.
func TestDisconnected(t *testing.T) {
	for _, row := range []struct {
		name string
		dial func(context.Context, string) (net.Conn, error)
		want func(error) bool
		text string
		// Of Get, which waits for the connection.
		get string
	}{
		{"refused", func(context.Context, string) (net.Conn, error) { return nil, errors.New("no route") },
			IsTemporary, "etcd at passthrough:///member: rpc error: code = Unavailable", "no route"},
		{"hanging", func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			func(err error) bool { return errors.Is(err, ErrNoAnswer) }, "passthrough:///member: still connecting", "still connecting"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, err := clientv3.New(clientv3.Config{Context: context.Background(), Endpoints: []string{"passthrough:///member"},
					DialOptions: []grpc.DialOption{grpc.WithContextDialer(row.dial)}})
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				client.ActiveConnection().Connect()
				time.Sleep(50 * time.Millisecond)
				if err := Disconnected(t.Context(), client); !row.want(err) || !strings.Contains(err.Error(), row.text) {
					t.Errorf("got %v, want %q", err, row.text)
				}
				if _, err := Get(t.Context(), client, "a"); !row.want(err) || !strings.Contains(err.Error(), row.get) {
					t.Errorf("Get: got %v, want %q", err, row.get)
				}
			})
		})
	}
}

func TestDisconnectedWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialed := false
		client, err := clientv3.New(clientv3.Config{Context: context.Background(), Endpoints: []string{"passthrough:///member"},
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				dialed = true
				return nil, errors.New("no route")
			})}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := Disconnected(t.Context(), client); err != nil || dialed {
			t.Errorf("got %v, dialed %t, want no question on a connection that nobody needed yet", err, dialed)
		}
	})
}
