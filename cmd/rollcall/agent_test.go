// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/agent"
)

// targets counts them, for each to have an address of its own: nothing else takes its port while it is stopped.
var targets atomic.Int32

// target is a server that accepts connections until it is stopped, and again after that.
type target struct {
	addr string
	lis  net.Listener
}

func newTarget(t *testing.T) *target {
	t.Helper()
	n := targets.Add(1)
	s := &target{addr: fmt.Sprintf("127.77.%d.%d:0", n/250, 1+n%250)}
	s.start(t)
	t.Cleanup(s.stop)
	return s
}

func (s *target) start(t *testing.T) {
	t.Helper()
	lis, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.lis, s.addr = lis, lis.Addr().String()
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

func (s *target) stop() { _ = s.lis.Close() }

// agentProcess is an agent in a process of its own.
type agentProcess struct {
	*process
	endpoint, file, socket string
}

// socketIn returns a path that is short enough for a socket, as t.TempDir's may not be.
func socketIn(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

// startAgent runs an agent with a file, and waits until it answers.
func startAgent(t *testing.T, endpoint, text string) *agentProcess {
	t.Helper()
	a := &agentProcess{endpoint: endpoint, file: filepath.Join(t.TempDir(), "services.yaml"), socket: socketIn(t)}
	writeFile(t, a.file, text)
	a.launch(t)
	return a
}

func (a *agentProcess) launch(t *testing.T) {
	t.Helper()
	a.process = launch(t, a.endpoint, "agent", "-f", a.file, "--socket", a.socket, "--drain", "500ms")
	eventually(t, "the agent answers", func() bool { _, code := a.status(t); return code != exitNotFound })
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// status asks the agent.
func (a *agentProcess) status(t *testing.T) (status agent.Status, code int) {
	t.Helper()
	got := rollcallAt(t, a.endpoint, "agent", "status", "--socket", a.socket, "-o", "json")
	if got.stdout != "" {
		if err := json.Unmarshal([]byte(got.stdout), &status); err != nil {
			t.Fatalf("%v: %s", err, got.stdout)
		}
	}
	return status, got.code
}

// await waits until the status is that all is well, or not.
func (a *agentProcess) await(t *testing.T, what string, want int) {
	t.Helper()
	eventually(t, what, func() bool { _, code := a.status(t); return code == want })
}

// services is a services file of endpoints whose servers accept connections, checked quickly.
func services(service string, entries ...string) string {
	text := "interval: 100ms\ntimeout: 10s\nfall: 2\nrise: 2\nchecks: [tcp]\nservices:\n"
	for i, e := range entries {
		text += fmt.Sprintf("- {service: %s, id: e%d, address: '%s'}\n", service, i, e)
	}
	return text
}

func modRevision(t *testing.T, client *clientv3.Client, key string) int64 {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].ModRevision
}

// An agent follows its file: what differs is changed, what does not is not written, and an error
// changes nothing.
func TestAgentReload(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	a, b, c := newTarget(t), newTarget(t), newTarget(t)
	p := startAgent(t, endpoint, services("t-agent", a.addr, b.addr))
	p.await(t, "both are registered", 0)
	first := modRevision(t, client, "t-agent/e0")
	if got := valueOf(t, client, "t-agent/e0"); got != fmt.Sprintf(`{"Op":0,"Addr":"%s","Metadata":null}`, a.addr) {
		t.Errorf("got %s, want nothing of the agent in it", got)
	}

	// Renamed into place: other metadata, and an endpoint more.
	text := services("t-agent", a.addr, b.addr, c.addr)
	writeFile(t, p.file+".new", strings.Replace(text, "id: e1,", "id: e1, metadata: {zone: eu-2},", 1))
	if err := os.Rename(p.file+".new", p.file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the metadata is new", func() bool { return strings.Contains(valueOf(t, client, "t-agent/e1"), "eu-2") })
	eventually(t, "the third is registered", func() bool { s, code := p.status(t); return code == 0 && len(s.Endpoints) == 3 })

	// Broken, by a signal: all stays, and it is said.
	writeFile(t, p.file, "services: [{servise: x}]")
	p.signal(t, syscall.SIGHUP)
	eventually(t, "the error is told", func() bool { s, _ := p.status(t); return strings.Contains(s.FileError, `unknown field "servise"`) })
	if s, code := p.status(t); code != exitOther || len(s.Endpoints) != 3 {
		t.Errorf("exit %d with %d endpoints, want %d and 3", code, len(s.Endpoints), exitOther)
	}
	wantIn(t, "stderr", p.stderr.String(), "services file is not usable", "servise")

	// Written in place: one less.
	writeFile(t, p.file, services("t-agent", a.addr, b.addr))
	eventually(t, "the third is gone", func() bool { return valueOf(t, client, "t-agent/e2") == "" })
	p.await(t, "all is well again", 0)
	if got := modRevision(t, client, "t-agent/e0"); got != first {
		t.Errorf("the endpoint that has not changed was written at revision %d, want %d, the first", got, first)
	}

	// Another check keeps the registration; another address begins anew.
	writeFile(t, p.file, strings.Replace(services("t-agent", a.addr, c.addr), "id: e0,", "id: e0, checks: ['exec:true'],", 1))
	eventually(t, "the address is new", func() bool { return strings.Contains(valueOf(t, client, "t-agent/e1"), c.addr) })
	eventually(t, "the check is new", func() bool { s, code := p.status(t); return code == 0 && s.Endpoints[0].Checks[0] == "exec:true" })
	if got := modRevision(t, client, "t-agent/e0"); got != first {
		t.Errorf("an endpoint with another check was written at revision %d, want %d, the first", got, first)
	}

	p.signal(t, syscall.SIGTERM)
	if code, _ := p.end(t); code != 0 {
		t.Errorf("exit %d, want 0; stderr %s", code, p.stderr.String())
	}
	for _, key := range []string{"t-agent/e0", "t-agent/e1"} {
		if got := valueOf(t, client, key); got != "" {
			t.Errorf("%s is left: %s", key, got)
		}
	}
	if _, err := os.Stat(p.socket); err == nil {
		t.Error("the socket is left")
	}
}

// A ConfigMap is a link to a link to a directory, which is exchanged.
func TestAgentConfigMap(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	a, b := newTarget(t), newTarget(t)
	dir := t.TempDir()
	for version, text := range map[string]string{"..1": services("t-agent-map", a.addr), "..2": services("t-agent-map", a.addr, b.addr)} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, version, "services.yaml"), text)
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/services.yaml", "services.yaml")
	p := &agentProcess{endpoint: endpoint, file: filepath.Join(dir, "services.yaml"), socket: socketIn(t)}
	p.launch(t)
	eventually(t, "one is registered", func() bool { s, code := p.status(t); return code == 0 && len(s.Endpoints) == 1 })
	link("..2", "..data")
	eventually(t, "two are registered", func() bool { s, code := p.status(t); return code == 0 && len(s.Endpoints) == 2 })
}

// When all checks fail, the network of the agent is to blame, and nothing is taken out; one that fails
// alone is.
func TestAgentOwnNetwork(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	targets := []*target{newTarget(t), newTarget(t), newTarget(t)}
	var runs atomic.Int32 // of an endpoint's checks
	counter := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runs.Add(1) }))
	t.Cleanup(counter.Close)
	p := startAgent(t, endpoint, strings.Replace(services("t-agent-net", targets[0].addr, targets[1].addr, targets[2].addr),
		"checks: [tcp]", "checks: [tcp, '"+counter.URL+"']", 1))
	p.await(t, "all are registered", 0)
	revisions := make(map[string]int64)
	for i := range targets {
		key := fmt.Sprintf("t-agent-net/e%d", i)
		revisions[key] = modRevision(t, client, key)
	}
	for _, s := range targets {
		s.stop()
	}
	eventually(t, "it is told", func() bool { s, code := p.status(t); return s.SelfPreservationSince != nil && code == exitOther })
	before := runs.Load()
	eventually(t, "each has failed ten times as often as would take it out", func() bool { return runs.Load() >= before+3*10*2 })
	s, _ := p.status(t)
	for _, e := range s.Endpoints {
		if e.Health != agent.Failing || !strings.Contains(e.LastError, "refused") {
			t.Errorf("%s is %s for %q, want it failing, and not taken out", e.ID, e.Health, e.LastError)
		}
	}
	table := rollcallAt(t, endpoint, "agent", "status", "--socket", p.socket)
	wantIn(t, "table", table.stdout, "LAST ERROR", "failing", "registered", "refused")
	wantIn(t, "stderr", table.stderr, "all checks fail, for ", "self-preservation takes nothing out")
	for _, s := range targets {
		s.start(t)
	}
	p.await(t, "all is well again", 0)
	for key, revision := range revisions {
		if got := modRevision(t, client, key); got != revision {
			t.Errorf("%s was written at revision %d, want %d, the first", key, got, revision)
		}
	}
	wantIn(t, "log", p.stderr.String(), "all checks fail: suspecting the network of the agent", "checks pass again")

	targets[0].stop()
	eventually(t, "one that fails alone drains", func() bool { return strings.Contains(valueOf(t, client, "t-agent-net/e0"), "draining") })
	targets[0].start(t)
	p.await(t, "it returns", 0)
}

// A second agent on a socket is refused; a socket that a dead one left behind is taken.
func TestAgentSocket(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	p := startAgent(t, endpoint, services("t-agent-socket", newTarget(t).addr))
	if info, err := os.Stat(p.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want a socket for this user alone", info, err)
	}
	second := rollcallAt(t, endpoint, "agent", "-f", p.file, "--socket", p.socket)
	if second.code != exitOther {
		t.Errorf("exit %d, want %d", second.code, exitOther)
	}
	wantIn(t, "stderr", second.stderr, "another agent runs", p.socket, "--socket")
	p.signal(t, syscall.SIGKILL)
	p.end(t)
	if got := rollcallAt(t, endpoint, "agent", "status", "--socket", p.socket); got.code != exitNotFound || !strings.Contains(got.stderr, "no agent runs at") {
		t.Errorf("exit %d, stderr %q, want %d", got.code, got.stderr, exitNotFound)
	}
	p.launch(t)
	p.await(t, "the next one answers", 0)
}

// systemd is told what happens, with a watchdog while the agent lives.
func TestAgentNotifies(t *testing.T) {
	path := socketIn(t)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "200000")
	a := newTarget(t)
	p := startAgent(t, sharedEtcd(t), services("t-agent-systemd", a.addr))
	await := func(want string) string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			if strings.Contains(string(buf[:n]), want) {
				return string(buf[:n])
			}
		}
	}
	await("READY=1")
	await("WATCHDOG=1")
	await("STATUS=1 of 1 endpoint healthy and registered")
	p.signal(t, syscall.SIGHUP)
	if text := await("RELOADING=1"); !strings.Contains(text, "MONOTONIC_USEC=") || strings.HasSuffix(text, "=0") {
		t.Errorf("got %q, want it with the time", text)
	}
	await("READY=1")
	p.signal(t, syscall.SIGTERM)
	await("STOPPING=1")
	await("WATCHDOG=1") // while it drains
	if code, _ := p.end(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestAgentBadInput(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	good, bad := filepath.Join(t.TempDir(), "good.yaml"), filepath.Join(t.TempDir(), "bad.yaml")
	writeFile(t, good, services("x", "10.0.0.1:80"))
	writeFile(t, bad, "services:\n- {service: a, address: x, checks: [tcp]}\n- {service: b, address: '10.0.0.1:80', checks: [udp]}")
	for _, row := range []struct {
		args string
		code int
		want []string
	}{
		{"agent", exitUsage, []string{"--file is missing"}},
		{"agent statsu", exitUsage, []string{`unknown command "statsu"; did you mean status?`}},
		{"agent -f /does/not/exist", exitUsage, []string{"/does/not/exist"}},
		{"agent -f " + good + " --drain -1s", exitUsage, []string{"--drain -1s"}},
		{"agent -f " + good + " --socket " + strings.Repeat("/long", 30), exitOther, []string{"too long"}},
		{"agent -f " + bad, exitUsage, []string{bad + ": services[0] (a x): address: ", bad + `: services[1] (b 10.0.0.1:80): checks: check "udp"`}},
		{"agent validate -f " + bad, exitUsage, []string{bad + ": services[0] (a x): address: ", "services[1]"}},
		{"agent validate -f " + good, 0, []string{"is valid: 1 endpoint"}},
	} {
		got := rollcallAt(t, endpoint, strings.Fields(row.args)...)
		if got.code != row.code {
			t.Errorf("%s: exit %d, want %d", row.args, got.code, row.code)
		}
		wantIn(t, row.args, got.stdout+got.stderr, row.want...)
	}
}
