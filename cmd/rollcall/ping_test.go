// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// listen serves gRPC until the test ends, with a health service that tells status, or with none.
func listen(t *testing.T, status healthpb.HealthCheckResponse_ServingStatus, opts ...grpc.ServerOption) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(opts...)
	if status != healthpb.HealthCheckResponse_UNKNOWN {
		server := health.NewServer()
		server.SetServingStatus("", status)
		healthpb.RegisterHealthServer(srv, server)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return lis.Addr().String()
}

func TestPing(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	put1(t, client, "ping/a", `{"Addr":"`+listen(t, healthpb.HealthCheckResponse_SERVING)+`"}`)
	put1(t, client, "ping/b", `{"Addr":"`+listen(t, healthpb.HealthCheckResponse_NOT_SERVING)+`"}`)
	put1(t, client, "ping/c", `{"Addr":"`+listen(t, healthpb.HealthCheckResponse_UNKNOWN)+`"}`)
	put1(t, client, "ping/d", `{"Addr":"`+closed.Addr().String()+`","Metadata":{"status":"draining"}}`)
	put1(t, client, "ping/e", "garbage")
	check := func(name string, code int) {
		t.Helper()
		begun := time.Now()
		table := rollcallAt(t, server.Endpoint(), "ping", "ping", "--timeout", "1s")
		asJSON := rollcallAt(t, server.Endpoint(), "ping", "ping", "--timeout", "1s", "-o", "json")
		if table.code != code || asJSON.code != code || table.stderr+asJSON.stderr != "" || time.Since(begun) > 10*time.Second {
			t.Errorf("exit %d and %d, want %d; stderr %q; after %v", table.code, asJSON.code, code, table.stderr+asJSON.stderr, time.Since(begun))
		}
		golden(t, name+".txt", timeless(table.stdout))
		golden(t, name+".json", timeless(asJSON.stdout))
	}
	check("ping", 0) // only one that drains is silent
	put1(t, client, "ping/f", `{"Addr":"`+mute.Addr().String()+`"}`)
	check("ping-silent", exitOther)

	if r := rollcallAt(t, server.Endpoint(), "ping", "nothing"); r.code != exitNotFound {
		t.Errorf("exit %d, want %d", r.code, exitNotFound)
	}
}

// A terminal is told how far it has come from the start, not only when the last are being asked.
func TestPingProgressOfMany(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for i := range 2*pingWorkers + 1 {
		put1(t, client, fmt.Sprintf("mute/%d", i), `{"Addr":"`+mute.Addr().String()+`"}`)
	}
	x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "ping", "mute", "--timeout", "2s")
	x.Await("0 of 129 endpoints asked")
	x.Await("64 of 129 endpoints asked")
	x.Await("128 of 129 endpoints asked")
	x.Await("0 of 129 endpoints answer")
	if code := x.End(); code != exitOther {
		t.Errorf("exit %d, want %d", code, exitOther)
	}
}

// timeless hides ports and times.
func timeless(text string) string {
	text = regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "127.0.0.1:PORT")
	text = regexp.MustCompile(`(Seconds": )[0-9.e-]+`).ReplaceAllString(text, "${1}0")
	text = regexp.MustCompile(`[0-9.]+(µs|ms)`).ReplaceAllString(text, "TIME")
	return regexp.MustCompile(` {2,}`).ReplaceAllString(text, "  ")
}

func TestPingWithTLS(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	ca := etcdtest.NewCA(t)
	cert := ca.Issue("server", time.Hour, "127.0.0.1")
	creds, err := credentials.NewServerTLSFromFile(cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	put1(t, client, "ping/a", `{"Addr":"`+listen(t, healthpb.HealthCheckResponse_SERVING, grpc.Creds(creds))+`"}`)
	for _, row := range []struct {
		flags, want string
		code        int
	}{
		{"--tls-ca=" + ca.File(), "SERVING", 0},
		{"--tls-skip-verify", "SERVING", 0},
		{"--tls", "certificate", exitOther},
		{"--timeout=1s", "", exitOther},
	} {
		r := rollcallAt(t, server.Endpoint(), append([]string{"ping", "ping"}, strings.Fields(row.flags)...)...)
		if r.code != row.code {
			t.Errorf("%s: exit %d, want %d: %s%s", row.flags, r.code, row.code, r.stdout, r.stderr)
		}
		wantIn(t, row.flags, r.stdout, row.want)
	}
}
