// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	grpcxds "google.golang.org/grpc/xds"

	_ "github.com/rollcall-grpc/rollcall/balancer/weighted"
	"github.com/rollcall-grpc/rollcall/xds"
)

// grpc-go's own client finds servers by names of all forms.
func TestNames(t *testing.T) {
	l := newLab(t, xds.Options{})
	l.start(t, "foo/bar/svc/a", "null")
	l.start(t, "foo/bar/svc/b", `{"zone":"eu-1"}`)
	for target, want := range map[string][]string{
		"xds:///foo/bar/svc":                           {"foo/bar/svc/a", "foo/bar/svc/b"},
		"xds:///foo/bar/svc/":                          {"foo/bar/svc/a", "foo/bar/svc/b"},
		"xds:///foo/bar/svc%3Fzone=eu-1":               {"foo/bar/svc/b"},
		"xds:///foo/bar/svc;zone=eu-1":                 {"foo/bar/svc/b"},
		"xds://test-authority/foo/bar/svc;zone=eu-1":   {"foo/bar/svc/b"},
		"xds://test-authority/foo/bar/svc":             {"foo/bar/svc/a", "foo/bar/svc/b"},
		"xds://test-authority/foo/bar/svc%3Fzone=eu-1": {"foo/bar/svc/b"},
	} {
		c := l.dial(t, target, "")
		eventually(t, func() string {
			if got := slices.Sorted(maps.Keys(calls(t, c, 20))); !slices.Equal(got, want) {
				return fmt.Sprintf("%s calls %v, want %v", target, got, want)
			}
			return ""
		})
	}
}

// A Go server that is enabled for xDS serves as it would without.
func TestServerListener(t *testing.T) {
	l := newLab(t, xds.Options{})
	bootstrap := fmt.Appendf(nil, `{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%%s",
		"node": {"id": "server"}}`, l.addr)
	modes := make(chan string, 10)
	srv, err := grpcxds.NewGRPCServer(grpcxds.BootstrapContentsForTesting(bootstrap), grpcxds.ServingModeCallback(func(addr net.Addr, args grpcxds.ServingModeChangeArgs) {
		modes <- fmt.Sprintf("%v %v", args.Mode, args.Err)
	}))
	if err != nil {
		t.Fatal(err)
	}
	testpb.RegisterTestServiceServer(srv, backend{name: "enabled"})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(lis)
	}()
	defer func() {
		srv.Stop()
		<-done
	}()
	select {
	case mode := <-modes:
		if mode != "SERVING <nil>" {
			t.Fatalf("the server is %s", mode)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not serve")
	}
	l.put("svc/a", lis.Addr().String(), "null")
	if got := calls(t, l.dial(t, "xds:///svc", ""), 5); got["enabled"] != 5 {
		t.Errorf("calls %v", got)
	}
	raw := l.connect(t, "bad")
	raw.ask(listenerType, nil, "", "grpc/server?xds.resource.listening_address=nonsense")
	wantNames(t, raw.answer(listenerType), "grpc/server?xds.resource.listening_address=nonsense")
}

// A service config in etcd becomes routes and a policy.
func TestServiceConfig(t *testing.T) {
	l := newLab(t, xds.Options{})
	for _, name := range []string{"a", "b", "c"} {
		l.start(t, "svc/"+name, "null")
	}
	l.etcd.Put("_grpc_config/svc", `{"loadBalancingConfig":[{"pick_first":{}}],"methodConfig":[{"name":[{"service":"grpc.testing.TestService","method":"UnaryCall"}],"timeout":"0.000000001s"}]}`)
	c := l.dial(t, "xds:///svc", "")
	for text := range calls(t, c, 3) {
		if !strings.Contains(text, "DeadlineExceeded") {
			t.Errorf("a call with a time-out of 1 ns: %s", text)
		}
	}
	l.etcd.Put("_grpc_config/svc", `{"loadBalancingConfig":[{"pick_first":{}}]}`)
	eventually(t, func() string {
		if got := calls(t, c, 20); len(got) != 1 || strings.Contains(fmt.Sprint(got), "rpc error") {
			return fmt.Sprintf("under pick_first calls went to %v", got)
		}
		return ""
	})
	l.etcd.Delete("_grpc_config/svc")
	eventually(t, func() string {
		if got := calls(t, c, 30); got["svc/a"] != 10 || got["svc/b"] != 10 {
			return fmt.Sprintf("under round_robin calls went to %v", got)
		}
		return ""
	})
}

// Clients that say where they are call their own zone, and others while it is empty or drains.
func TestZones(t *testing.T) {
	l := newLab(t, xds.Options{})
	near := l.start(t, "svc/near", `{"region":"eu","zone":"eu-1"}`)
	l.start(t, "svc/far", `{"region":"eu","zone":"eu-2"}`)
	c, elsewhere := l.dial(t, "xds:///svc", "eu-1"), l.dial(t, "xds:///svc", "")
	only := func(name string) {
		t.Helper()
		eventually(t, func() string {
			if got := calls(t, c, 20); got[name] != 20 {
				return fmt.Sprintf("calls went to %v, want %s alone", got, name)
			}
			return ""
		})
	}
	only("svc/near")
	eventually(t, func() string {
		if got := calls(t, elsewhere, 20); got["svc/near"] == 0 || got["svc/far"] == 0 {
			return fmt.Sprintf("a client of no zone calls %v", got)
		}
		return ""
	})
	l.put("svc/near", near, `{"region":"eu","zone":"eu-1","status":"draining"}`)
	only("svc/far")
	l.put("svc/near", near, `{"region":"eu","zone":"eu-1"}`)
	only("svc/near")
	l.etcd.Delete("svc/near")
	only("svc/far")
}

// Go clients that import rollcall_weighted use it; others fall back (see the polyglot tests).
func TestWeighted(t *testing.T) {
	l := newLab(t, xds.Options{})
	l.start(t, "svc/light", "null")
	l.start(t, "svc/heavy", `{"weight":9}`)
	l.etcd.Put("_grpc_config/svc", `{"loadBalancingConfig":[{"rollcall_weighted":{}}]}`)
	c := l.dial(t, "xds:///svc", "")
	eventually(t, func() string {
		if got := calls(t, c, 100); got["svc/light"] != 10 { // in turns, where wrr_locality draws lots
			return fmt.Sprintf("calls went to %v", got)
		}
		return ""
	})
	if r := l.server.Stats().Rejections; r > 0 {
		t.Errorf("%d rejections: %+v", r, l.server.Clients())
	}
}

// eventually repeats a check that returns what is wrong.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		wrong := check()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(wrong)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
