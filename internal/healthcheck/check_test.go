// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// patience is a timeout that a check meets on a busy machine.
const patience = 20 * time.Second

// wantRun runs a check of addr, and compares its error with "", or a part of it.
func wantRun(t *testing.T, text, addr string, timeout time.Duration, want string) {
	t.Helper()
	check, err := Parse(text, addr)
	if err != nil {
		t.Fatal(err)
	}
	switch err = check.Run(t.Context(), timeout); {
	case want == "" && err != nil:
		t.Errorf("%s: %v, want it to pass", text, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want %q", text, err, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "unknown kind",
		"ping":                 "unknown kind",
		"exec:":                "the command is missing",
		"exec: ":               "the command is missing",
		"http:/healthz":        "the // is missing",
		"tcp:x":                "nothing but an address",
		"tcp://h:1/x":          "nothing but an address",
		"grpc://h/x":           "the port is missing",
		"http://h:port/":       "invalid port",
		"http://[::1":          "missing ']'",
		"udp://127.0.0.1:5353": "unknown kind",
		"tcp://h:99999":        "port 99999 is not from 1 to 65535",
		"http://h:0/":          "port 0 is not",
		"grpc://h:1/shop?a=b":  "neither ? nor #",
		"http://h:1/#top":      "neither ? nor #",
		"http://u:secret@:1/x": "no user or password",
	} {
		if _, err := Parse(text, "10.0.0.1:80"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "want grpc") {
			t.Errorf("%q: %v, want %q and what is possible", text, err, want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v shows the password", text, err)
		}
	}
}

// listen returns the address of a listener that a function serves until the test ends.
func listen(t *testing.T, serve func(net.Listener)) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(lis)
	}()
	t.Cleanup(func() {
		lis.Close()
		<-done
	})
	return lis.Addr().String()
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	return listen(t, func(lis net.Listener) {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	})
}

func serveGRPC(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	srv := grpc.NewServer(opts...)
	register(srv)
	t.Cleanup(srv.Stop)
	return listen(t, func(lis net.Listener) { _ = srv.Serve(lis) })
}

// unused returns an address on which nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

func TestGRPC(t *testing.T) {
	status := health.NewServer()
	status.SetServingStatus("shop", healthpb.HealthCheckResponse_NOT_SERVING)
	addr := serveGRPC(t, func(srv *grpc.Server) { healthpb.RegisterHealthServer(srv, status) })
	wantRun(t, "grpc", addr, patience, "")
	wantRun(t, "grpc:shop", addr, patience, `gRPC health of "shop" is NOT_SERVING`)
	wantRun(t, "grpc:other", addr, patience, `knows no service "other"`)
	wantRun(t, "grpc://"+addr, "10.0.0.1:80", patience, "")
	_, port, _ := net.SplitHostPort(addr)
	wantRun(t, "grpc://:"+port+"/shop", "127.0.0.1:80", patience, `gRPC health of "shop" is NOT_SERVING`)
	status.Shutdown()
	wantRun(t, "grpc", addr, patience, `gRPC health of "" is NOT_SERVING`)

	plain := serveGRPC(t, func(*grpc.Server) {})
	wantRun(t, "grpc", plain, patience, "use a tcp check")
	wantRun(t, "tcp", plain, patience, "")
	wantRun(t, "grpc", unused(t), patience, "connection refused")
	wantRun(t, "grpc", silent(t), 200*time.Millisecond, "grpc: no answer within 200ms")
	closing := listen(t, func(lis net.Listener) {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	})
	wantRun(t, "grpc", closing, patience, `gRPC health of "": Unavailable`)
}

func TestTLS(t *testing.T) {
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	site.StartTLS()
	t.Cleanup(site.Close)
	wantRun(t, site.URL+"/x", "10.0.0.1:80", patience, "HTTP status 404 Not Found: 404 page not found")
	addr := serveGRPC(t, func(srv *grpc.Server) { healthpb.RegisterHealthServer(srv, health.NewServer()) },
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: site.TLS.Certificates})))
	wantRun(t, "grpcs", addr, patience, "")
	wantRun(t, "grpc", addr, patience, `gRPC health of ""`)
}

func TestTCP(t *testing.T) {
	addr := silent(t)
	wantRun(t, "tcp", addr, patience, "")
	wantRun(t, "tcp://"+addr, "10.0.0.1:80", patience, "")
	refused := unused(t)
	wantRun(t, "tcp", refused, patience, "tcp: connect to "+refused+": connection refused")
}

func TestHTTP(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
		case "/moved":
			http.Redirect(w, r, "/bad", http.StatusFound)
		case "/empty":
			w.WriteHeader(http.StatusTeapot)
		default:
			http.Error(w, "database \x1b[31mis away\n"+strings.Repeat("x", 1<<20), http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(site.Close)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	addr := site.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	wantRun(t, site.URL+"/ok", "10.0.0.1:80", patience, "")
	wantRun(t, "http:///ok", addr, patience, "")
	wantRun(t, "http://:"+port+"/ok", "127.0.0.1:1", patience, "")
	wantRun(t, site.URL+"/moved", addr, patience, "")
	wantRun(t, site.URL+"/empty", addr, patience, "HTTP status 418 I'm a teapot")
	wantRun(t, site.URL+"/bad?deep=1", addr, patience, `/bad?deep=1: HTTP status 503 Service Unavailable: database \x1b[31mis away`)
	refused := unused(t)
	wantRun(t, "http://"+refused, addr, patience, "connect to "+refused+": connection refused")
	wantRun(t, "http:///", silent(t), 100*time.Millisecond, "no answer within 100ms")
	endless := says(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000\r\n\r\nloading\n")
	wantRun(t, "http:///", endless, time.Second, "HTTP status 503 Service Unavailable: loading")
	check, err := Parse("http:///", says(t, strings.Repeat("garbage ", 1<<17)))
	if err != nil {
		t.Fatal(err)
	}
	if err := check.Run(t.Context(), patience); err == nil || len(err.Error()) > 2*maxDetail {
		t.Errorf("an error of %d bytes, want a short one", len(fmt.Sprint(err)))
	}
}

// says accepts connections, answers the request on each and keeps it open.
func says(t *testing.T, text string) string {
	return listen(t, func(lis net.Listener) {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			go func() {
				_, _ = conn.Read(make([]byte, 4096)) // an answer before the request is an error of its own
				_, _ = conn.Write([]byte(text))
			}()
		}
	})
}

func TestExec(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("commands are run by sh")
	}
	const addr = "10.0.0.1:80"
	wantRun(t, "exec:exit 0", addr, patience, "")
	wantRun(t, "exec:test -n \"$PATH\" && cat", addr, patience, "") // no input
	wantRun(t, "exec:exit 3", addr, patience, "exec:exit 3: exit status 3")
	wantRun(t, "exec:echo first; echo 'last\x1b[1m' >&2; exit 2", addr, patience, `exit status 2: last\x1b[1m`)
	wantRun(t, "exec:yes 0123456789 | head -c 100000; exit 1", addr, patience, "exit status 1: 0123")
	wantRun(t, "exec:kill -9 $$", addr, patience, "signal: killed")
	wantRun(t, "exec:sleep 3 & exit 0", addr, patience, "") // its output is not awaited
	wantRun(t, "exec:sleep 3 & echo bad; exit 1", addr, patience, "exit status 1: bad")
	t.Setenv("ROLLCALL_PASSWORD", "secret")
	t.Setenv("ETCDCTL_USER", "root:secret")
	t.Setenv("ROLLCALL_ENDPOINTS", "127.0.0.1:1")
	wantRun(t, `exec:test -z "$ROLLCALL_PASSWORD$ETCDCTL_USER" && test -n "$ROLLCALL_ENDPOINTS"`, addr, patience, "")
	wantRun(t, "exec:no-such-command-here", addr, patience, "exit status 127: ")
}

// A command that takes too long is killed with what it has started; what one leaves behind is killed, too.
func TestExecKillsItsGroup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("only Unix has process groups")
	}
	file := filepath.Join(t.TempDir(), "written")
	began := time.Now()
	wantRun(t, "exec:(sleep 1; echo > '"+file+"') & exit 0", "10.0.0.1:80", patience, "")
	wantRun(t, "exec:(sleep 1; echo > '"+file+"') & sleep 60", "10.0.0.1:80", 200*time.Millisecond, "no answer within 200ms")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	time.Sleep(1500*time.Millisecond - time.Since(began))
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the command had started lived on: %v", err)
	}
}

// A check that is interrupted does not say that nothing answered.
func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, text := range []string{"grpc", "tcp", "http:///", "exec:sleep 60"} {
		check, err := Parse(text, silent(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := check.Run(ctx, patience); err == nil || strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := (Check{}).Run(ctx, patience); err != nil {
		t.Errorf("the zero check: %v", err)
	}
}
