// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

// runVariable makes the test binary be rollcall itself, for tests of processes; what that starts inherits it.
const runVariable = "TEST_RUN_ROLLCALL"

func TestMain(m *testing.M) {
	rollcall := func() { os.Exit(run(os.Args[1:])) }
	if os.Getenv(runVariable) != "" {
		rollcall()
	}
	testscript.Main(checkedMain{m}, map[string]func(){"rollcall": rollcall})
}

// checkedMain runs all tests, stops the shared etcd and looks for what they left behind.
type checkedMain struct{ *testing.M }

func (m checkedMain) Run() int {
	for _, variable := range os.Environ() { // those of the developer
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "ROLLCALL_") || strings.HasPrefix(name, "ETCDCTL_") {
			os.Unsetenv(name)
		}
	}
	code := m.M.Run()
	if shared.server != nil {
		_ = shared.server.Close()
	}
	if code == 0 {
		// grpc-go's xDS client leaves it behind for some of the bootstrap files that name certificates.
		ignored := goleak.IgnoreTopFunction("google.golang.org/grpc/credentials/tls/certprovider/pemfile.(*watcher).run")
		if err := goleak.Find(ignored); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	return code
}

func etcdClient(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	client, err := rollcall.NewClient(rollcall.ClientConfig(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func put1(t *testing.T, client *clientv3.Client, key, value string, opts ...clientv3.OpOption) int64 {
	t.Helper()
	resp, err := client.Put(t.Context(), key, value, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func revisionOf(t *testing.T, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Get(t.Context(), "any")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func valueOf(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func leaseCount(t *testing.T, client *clientv3.Client) int {
	t.Helper()
	resp, err := client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Leases)
}

// session is a rollcall that runs in this process.
type session struct {
	app            *app
	stdout, stderr logtest.Buffer
	ctx            context.Context
	cancel         context.CancelCauseFunc
	code           chan int
}

// begin starts a command line. The environment holds what is given, as NAME=value.
func begin(t *testing.T, env []string, args ...string) *session {
	t.Helper()
	return beginWith(t, "", env, args...)
}

// beginWith is begin with something on standard input.
func beginWith(t *testing.T, stdin string, env []string, args ...string) *session {
	t.Helper()
	s := newSession(t, stdin, env)
	s.start(args)
	return s
}

// newSession is a rollcall that has not started yet.
func newSession(t *testing.T, stdin string, env []string) *session {
	t.Helper()
	s := &session{code: make(chan int, 1)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.app = &app{stdin: strings.NewReader(stdin), stdout: &s.stdout, stderr: &s.stderr, environ: env, getenv: func(name string) (string, bool) {
		for _, pair := range env {
			if key, value, _ := strings.Cut(pair, "="); key == name {
				return value, true
			}
		}
		return "", false
	}}
	t.Cleanup(func() { s.cancel(nil) })
	return s
}

func (s *session) start(args []string) {
	args = append([]string{}, args...) // cobra takes the test's own for nil
	go func() { s.code <- s.app.run(s.ctx, args) }()
}

// end waits for the exit code.
func (s *session) end(t *testing.T) int {
	t.Helper()
	select {
	case code := <-s.code:
		return code
	case <-time.After(30 * time.Second):
		t.Fatalf("still running; stdout %q, stderr %q", s.stdout.String(), s.stderr.String())
		return -1
	}
}

// interrupt is what SIGINT does to a command.
func (s *session) interrupt() { s.cancel(signalError{syscall.SIGINT}) }

type result struct {
	code           int
	stdout, stderr string
}

// rollcallAt runs a command line to its end.
func rollcallAt(t *testing.T, endpoint string, args ...string) result {
	t.Helper()
	s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=10s"}, args...)
	code := s.end(t)
	return result{code, s.stdout.String(), s.stderr.String()}
}

// must is rollcallAt for what must work.
func must(t *testing.T, endpoint string, args ...string) result {
	t.Helper()
	r := rollcallAt(t, endpoint, args...)
	if r.code != 0 {
		t.Fatalf("rollcall %s: exit %d, stderr %q", strings.Join(args, " "), r.code, r.stderr)
	}
	return r
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !met(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

func wantIn(t *testing.T, where, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s = %q, want %q in it", where, text, part)
		}
	}
}
