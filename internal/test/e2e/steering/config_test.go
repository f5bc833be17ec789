// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

const configKey = rollcall.ConfigPrefix + "svc"

var (
	both   = map[string]float64{"a": 0.5, "b": 0.5}
	onlyIt = func(got map[string]float64) bool { return len(got) == 1 }
)

// reaches calls until the servers that are called are as wanted.
func (f *fleet) reaches(conn *grpc.ClientConn, what string, met func(map[string]float64) bool) (took time.Duration) {
	f.t.Helper()
	began := time.Now()
	for {
		at := time.Since(began)
		got, _ := f.shares(conn, 40)
		if met(got) {
			return at
		}
		if time.Since(began) > lab.WaitMost {
			f.t.Fatalf("%s: shares %v", what, got)
		}
	}
}

func sharedDirectory(t *testing.T, client *clientv3.Client) *rollcall.Directory {
	t.Helper()
	d, err := rollcall.SharedDirectory(client)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A service config in etcd is a running channel's from one moment to the next.
func TestServiceConfig(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("a", "b")
	f.put("a", nil)
	f.put("b", nil)
	log := new(logtest.Buffer)
	b, err := resolver.NewBuilderWithOptions(sharedDirectory(t, f.etcd), resolver.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	dial := func(opts ...grpc.DialOption) *grpc.ClientConn {
		conn, err := grpc.NewClient("etcd:///svc", append(opts, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	conn, deaf := dial(), dial(grpc.WithDisableServiceConfig())
	f.reaches(conn, "pick_first is the default", onlyIt)
	f.reaches(deaf, "pick_first is the default", onlyIt)
	lab.PutValue(t, f.etcd, configKey, policy("round_robin", "{}"))
	t.Logf("round_robin was in force after %v", f.becomes(conn, 40, 0.01, both))

	lab.PutValue(t, f.etcd, configKey, policy("no_such_policy", "{}"))
	for began := time.Now(); !strings.Contains(log.String(), "no_such_policy"); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > lab.WaitMost {
			t.Fatal("a service config that gRPC refuses is not in the log")
		}
	}
	if !strings.Contains(log.String(), "service config is invalid") || !strings.Contains(log.String(), configKey) {
		t.Errorf("the log does not say what is wrong: %s", log)
	}
	f.becomes(conn, 40, 0.01, both) // the last good one stays

	lab.Remove(t, f.etcd, configKey)
	f.reaches(conn, "without a service config it is pick_first again", onlyIt)
	if got, _ := f.shares(deaf, 40); !onlyIt(got) {
		t.Errorf("a channel that wants no service config has one: %v", got)
	}

	// Timeouts as well.
	lab.PutValue(t, f.etcd, configKey, `{"methodConfig":[{"name":[{}],"timeout":"0.000000001s"}]}`)
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := lab.Call(t, conn); err != nil {
			break
		}
		if time.Since(began) > lab.WaitMost {
			t.Fatal("calls go on without the timeout")
		}
	}
}

// A client that may not read the service config resolves as before.
func TestServiceConfigDenied(t *testing.T) {
	t.Parallel()
	f := newFleetOf(t, etcdtest.New(t, etcdtest.Options{}))
	f.start("a", "b")
	f.put("a", nil)
	f.put("b", nil)
	lab.PutValue(t, f.etcd, configKey, policy("pick_first", "{}"))
	auth := f.cluster.EnableAuth(t)
	auth.AddUser("narrow", "secret", etcdtest.Read("svc/"))
	log := new(logtest.Buffer)
	b, err := resolver.NewBuilderWithOptions(sharedDirectory(t, auth.Client(t, "narrow")), resolver.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///svc", grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(policy("round_robin", "{}")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f.becomes(conn, 40, 0.01, both)
	if !strings.Contains(log.String(), "no right to read the service config") {
		t.Errorf("the log does not say so: %s", log)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lab.WaitMost)
	defer cancel()
	if _, err := auth.Client(t, "root").Delete(ctx, "svc/b"); err != nil {
		t.Fatal(err)
	}
	f.becomes(conn, 40, 0.001, map[string]float64{"a": 1}) // its watch goes on
}

// Channels with different selectors share a watch; metadata moves calls, not connections.
func TestSelectors(t *testing.T) {
	t.Parallel()
	f := newFleetOf(t, etcdtest.New(t, etcdtest.Options{}))
	f.start("a", "b", "c")
	f.put("a", map[string]any{"version": "v1", "zone": "x"})
	f.put("b", map[string]any{"version": "v2", "zone": "x"})
	f.put("c", map[string]any{"version": "v2", "zone": "y"})
	rr := policy("round_robin", "{}")
	b, err := resolver.NewBuilder(f.etcd)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(target string) *grpc.ClientConn {
		conn, err := grpc.NewClient(target, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(rr), grpc.WithDisableServiceConfig())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	v2, x, all := dial("etcd:///svc?version=v2"), dial("etcd:///svc?version=v2&version=v1&zone=x"), dial("etcd:///svc")
	f.becomes(v2, 60, 0.03, map[string]float64{"b": 0.5, "c": 0.5})
	f.becomes(x, 60, 0.03, map[string]float64{"a": 0.5, "b": 0.5})
	f.becomes(all, 60, 0.03, map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3})
	if n := f.cluster.Member(0).Metric(t, "etcd_debugging_mvcc_watcher_total"); n != 1 {
		t.Errorf("three channels have %v watches, want 1", n)
	}
	connections := f.accepts.Load()
	f.put("a", map[string]any{"version": "v1", "zone": "x", "note": "changed"})
	f.put("c", map[string]any{"version": "v2", "zone": "x"})
	f.becomes(x, 60, 0.03, map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3})
	f.becomes(all, 60, 0.03, map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3})
	if n := f.accepts.Load() - connections; n != 1 {
		t.Errorf("changed metadata made %d connections, want 1: of the channel that selects c now", n)
	}
	none := dial("etcd:///svc?version=v3")
	if _, err := lab.Call(t, none); err == nil || !strings.Contains(err.Error(), "none of 3 matches version=v3") {
		t.Errorf("a selector that selects nobody: %v", err)
	}
	for _, bad := range []string{"etcd:///svc?colour=red", "etcd:///svc?weight=heavy", "etcd:///svc?zone=%zz"} {
		conn, err := grpc.NewClient(bad, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err == nil {
			_, err = lab.Call(t, conn)
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "invalid target") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
