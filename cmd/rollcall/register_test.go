// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

func TestRegister(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-reg/blue"
	s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + endpoint}, "register", "t-reg", "--addr", "10.0.0.1:80",
		"--id", "blue", "--ttl", "2500ms", "--metadata", `{"zone":"eu-1"}`)
	eventually(t, "the key is printed", func() bool { return strings.Contains(s.stdout.String(), key) })
	wantIn(t, "stdout", s.stdout.String(), " 3s ")
	wantIn(t, "get", must(t, endpoint, "get", "t-reg", "-o", "wide").stdout, "blue", "10.0.0.1:80", " eu-1 ", "/3s ")

	// An operator takes the key away; it comes back, and that is told.
	must(t, endpoint, "rm", "t-reg", "blue", "--yes")
	eventually(t, "the key is back", func() bool { return valueOf(t, client, key) != "" })

	// A successor takes the name, and goes.
	grant, err := client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	put1(t, client, key, `{"Addr":"10.0.0.2:80"}`, clientv3.WithLease(grant.ID))
	eventually(t, "the successor is reported", func() bool { return strings.Contains(s.stderr.String(), "was taken over by another process") })
	if _, err := client.Revoke(t.Context(), grant.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the return is told of", func() bool { return strings.Contains(s.stderr.String(), `"t-reg/blue" is registered`) })

	s.interrupt()
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d, stderr %q, want 0", code, s.stderr.String())
	}
	wantNothingLeft(t, client, key)
}

// A key that another process keeps is not said to be removed.
func TestRegisterLeavesWhatWasTakenOver(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-taken/blue"
	s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, "register", "t-taken", "--addr", "10.0.0.1:80", "--id", "blue")
	eventually(t, "the key is printed", func() bool { return strings.Contains(s.stdout.String(), key) })
	grant, err := client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	put1(t, client, key, `{"Addr":"10.0.0.2:80"}`, clientv3.WithLease(grant.ID))
	eventually(t, "the successor is reported", func() bool { return strings.Contains(s.stderr.String(), "was taken over by another process") })
	s.interrupt()
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	wantIn(t, "stderr", s.stderr.String(), `"t-taken/blue" was left to the process that took it over`)
	if strings.Contains(s.stderr.String(), "was removed") || valueOf(t, client, key) == "" {
		t.Errorf("the key of another: %q, stderr %q", valueOf(t, client, key), s.stderr.String())
	}
	if _, err := client.Revoke(t.Context(), grant.ID); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, client, key)
}

// What register adds to the metadata can be left out.
func TestRegisterNoOrigin(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-no-origin/10.0.0.1:80"
	s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, "register", "t-no-origin", "--addr", "10.0.0.1:80", "--no-origin")
	eventually(t, "the key is printed", func() bool { return strings.Contains(s.stdout.String(), key) })
	if got, want := valueOf(t, client, key), `{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.interrupt()
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d, stderr %q, want 0", code, s.stderr.String())
	}
}

func wantNothingLeft(t *testing.T, client *clientv3.Client, key string) {
	t.Helper()
	if got := valueOf(t, client, key); got != "" {
		t.Errorf("value left behind: %q", got)
	}
	eventually(t, "no lease is left", func() bool { return leaseCount(t, client) == 0 })
}

func TestRegisterAsJSON(t *testing.T) {
	endpoint := sharedEtcd(t)
	s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + endpoint}, "register", "t-json", "--addr", "10.0.0.1:80", "-o", "json")
	eventually(t, "a line", func() bool { return strings.HasSuffix(s.stdout.String(), "}\n") })
	wantIn(t, "stdout", s.stdout.String(), `"kind":"Instance"`, `"key":"t-json/10.0.0.1:80"`, `"ttl":10`, `"lease":"`)
	s.interrupt()
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestRegisterWithoutEtcd: told to stop while etcd is gone, it says what stays behind.
func TestRegisterWithoutEtcd(t *testing.T) {
	server := freshEtcd(t)
	s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + server.Endpoint()}, "register", "svc", "--addr", "10.0.0.1:80", "--ttl", "2s")
	eventually(t, "the key is printed", func() bool { return strings.Contains(s.stdout.String(), "svc/") })
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	s.interrupt()
	if code := s.end(t); code != exitUnreachable {
		t.Errorf("exit %d, want %d", code, exitUnreachable)
	}
	wantIn(t, "stderr", s.stderr.String(), "when its lease ends", "connection refused")
}

// A server that is healthy while etcd is gone is not registered, and that is told.
func TestRegisterHealthyWithoutEtcd(t *testing.T) {
	server := freshEtcd(t)
	file := filepath.Join(t.TempDir(), "healthy")
	s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + server.Endpoint()}, "register", "svc", "--addr", "10.0.0.1:80", "--ttl", "2s",
		"--check", "exec:test -e "+file, "--interval", "100ms")
	eventually(t, "it waits", func() bool { return strings.Contains(s.stderr.String(), "is not registered until its checks pass") })
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cause is told", func() bool { return strings.Contains(s.stderr.String(), `"svc/10.0.0.1:80" is not registered: `) })
	s.interrupt()
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d; stderr %q", code, s.stderr.String())
	}
}

func TestStateText(t *testing.T) {
	for want, state := range map[string]rollcall.State{
		`"k" is registered, under lease 1f`:                                                          {Phase: rollcall.Registered, Lease: 0x1f},
		`"k" is draining, under lease 1f`:                                                            {Phase: rollcall.Draining, Lease: 0x1f},
		`"k" is draining, but cannot be changed: boom; trying again`:                                 {Phase: rollcall.Draining, Err: errors.New("boom")},
		`"k" is not registered: boom; trying again`:                                                  {Phase: rollcall.Lost, Err: errors.New("boom")},
		`"k" was taken over by another process, under another lease; waiting until that one is gone`: {Phase: rollcall.Lost, Err: rollcall.ErrSuperseded},
	} {
		if got := stateText("k", state); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A connection that breaks is told once, however often it is tried again, and so is each other state.
func TestAlikeStates(t *testing.T) {
	lost := func(err error) rollcall.State { return rollcall.State{Phase: rollcall.Lost, Err: err} }
	refused := func(port string) error {
		return status.Error(codes.Unavailable, "dial from :"+port+": connection refused")
	}
	for _, row := range []struct {
		a, b rollcall.State
		want bool
	}{
		{lost(refused("1")), lost(refused("2")), true},
		{lost(refused("1")), lost(fmt.Errorf("grant a lease: %w", context.DeadlineExceeded)), true},
		{lost(refused("1")), lost(errors.New("lease was not renewed")), false},
		{lost(refused("1")), rollcall.State{Phase: rollcall.Draining, Err: refused("1")}, false},
		{lost(refused("1")), rollcall.State{Phase: rollcall.Registered}, false},
		{rollcall.State{Phase: rollcall.Registered, Lease: 1}, rollcall.State{Phase: rollcall.Registered, Lease: 2}, false},
		{rollcall.State{Phase: rollcall.Registered, Lease: 1}, rollcall.State{Phase: rollcall.Registered, Lease: 1, TTL: 1}, true},
	} {
		if got := alike(row.a, row.b); got != row.want {
			t.Errorf("%v and %v: %v, want %v", row.a, row.b, got, row.want)
		}
	}
}

// process is rollcall as a process of its own.
type process struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr logtest.Buffer
}

// launch starts rollcall in a process group of its own, away from any terminal.
func launch(t *testing.T, endpoint string, args ...string) *process {
	t.Helper()
	return launchWith(t, endpoint, &syscall.SysProcAttr{Setpgid: true}, args...)
}

// launchWith is launch with other attributes, which have to give it a process group of its own.
func launchWith(t *testing.T, endpoint string, attributes *syscall.SysProcAttr, args ...string) *process {
	t.Helper()
	return launchBy(t, nil, endpoint, attributes, args...)
}

// launchBy is launchWith by another command, such as unshare.
func launchBy(t *testing.T, by []string, endpoint string, attributes *syscall.SysProcAttr, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := append(append(slices.Clone(by), self), args...)
	p := &process{cmd: exec.Command(line[0], line[1:]...)}
	p.cmd.Env = append(os.Environ(), runVariable+"=1", "ROLLCALL_ENDPOINTS="+endpoint, "ROLLCALL_DIAL_TIMEOUT=10s")
	p.cmd.SysProcAttr = attributes
	p.cmd.Stderr = &p.stderr
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(pipe)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// end waits for the exit code and returns the rest of stdout.
func (p *process) end(t *testing.T) (code int, rest string) {
	t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }) // and what it started
	defer timer.Stop()
	data, _ := io.ReadAll(p.stdout)
	_ = p.cmd.Wait()
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), string(data)
	}
	return p.cmd.ProcessState.ExitCode(), string(data)
}

func TestRegisterProcess(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			p := launch(t, endpoint, "register", "t-proc", "--addr", "10.0.0.1:80", "--ttl", "59.5s")
			_, _ = p.stdout.ReadString('\n')
			row, _ := p.stdout.ReadString('\n')
			wantIn(t, "stdout", row, "t-proc/10.0.0.1:80", "60s")
			p.signal(t, sig)
			if code, _ := p.end(t); code != 0 {
				t.Errorf("exit %d, want 0; stderr %q", code, p.stderr.String())
			}
			wantNothingLeft(t, client, "t-proc/10.0.0.1:80")
		})
	}
}

// script says when it has started, which signals it takes, and how it ends.
const script = `trap 'echo got HUP' HUP; trap 'echo got INT; exit 7' INT; trap 'echo got TERM; exit 8' TERM
echo started; i=0; while [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done`

func TestRegisterCommand(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-cmd/10.0.0.1:80"
	for _, row := range []struct {
		name   string
		ttl    string
		script string
		signal syscall.Signal
		code   int
		out    string
	}{
		{"ends well", "60s", "echo out; sleep 0.3", 0, 0, "out\n"},
		{"ends at once", "2s", "exit 0", 0, 0, ""},
		{"fails", "60s", "sleep 0.3; exit 42", 0, 42, ""},
		{"kills itself", "60s", "sleep 0.3; kill -9 $$", 0, 137, ""},
		{"takes SIGINT", "60s", script, syscall.SIGINT, 7, "started\ngot INT\n"},
		{"takes SIGTERM", "60s", script, syscall.SIGTERM, 8, "started\ngot TERM\n"},
		{"dies of SIGTERM", "60s", "echo started; exec sleep 60", syscall.SIGTERM, 143, "started\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := launch(t, endpoint, "register", "t-cmd", "--addr", "10.0.0.1:80", "--ttl", row.ttl, "--drain", "200ms", "--", "sh", "-c", row.script)
			first := ""
			if row.signal != 0 {
				first, _ = p.stdout.ReadString('\n') // it takes signals
				eventually(t, "it is registered", func() bool { return strings.Contains(p.stderr.String(), key) })
				p.signal(t, row.signal)
			}
			code, out := p.end(t)
			out = first + out
			if code != row.code || out != row.out {
				t.Errorf("exit %d, stdout %q, want %d and %q; stderr %q", code, out, row.code, row.out, p.stderr.String())
			}
			wantNothingLeft(t, client, key)
		})
	}
}

// etcd's credentials are not the command's.
func TestRegisterKeepsCredentials(t *testing.T) {
	t.Setenv("ROLLCALL_PASSWORD", "secret")
	p := launch(t, sharedEtcd(t), "register", "t-secret", "--addr", "10.0.0.1:80", "--", "sh", "-c", `echo "$ROLLCALL_PASSWORD at $ROLLCALL_ENDPOINTS"`)
	if code, out := p.end(t); code != 0 || !strings.HasPrefix(out, " at ") || out == " at \n" {
		t.Errorf("exit %d, stdout %q, want the endpoints alone; stderr %q", code, out, p.stderr.String())
	}
}

// TestRegisterCommandLivesOn: a signal that the command survives leaves it registered.
func TestRegisterCommandLivesOn(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-live/10.0.0.1:80"
	p := launch(t, endpoint, "register", "t-live", "--addr", "10.0.0.1:80", "--ttl", "60s", "--drain", "200ms", "--", "sh", "-c", script)
	eventually(t, "it is registered", func() bool { return strings.Contains(p.stderr.String(), key) })
	for _, want := range []string{"started\n", "got HUP\n"} {
		if line, _ := p.stdout.ReadString('\n'); line != want {
			t.Errorf("line %q, want %q", line, want)
		}
		if want == "started\n" {
			p.signal(t, syscall.SIGHUP)
		}
	}
	if got, err := rollcall.SharedDirectory(client); err != nil {
		t.Fatal(err)
	} else if snap, err := got.List(t.Context(), "t-live"); err != nil || snap.Len() != 1 || slices.ContainsFunc(slices.Collect(snap.All()), (*rollcall.Instance).Draining) {
		t.Errorf("snapshot %+v, %v, want it registered still", snap, err)
	}
	p.signal(t, syscall.SIGTERM)
	if code, _ := p.end(t); code != 8 {
		t.Errorf("exit %d, want 8", code)
	}
	wantNothingLeft(t, client, key)
}

// A command does not run on, unlisted, when register itself is killed.
func TestRegisterKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a command that its parent was killed")
	}
	p := launch(t, sharedEtcd(t), "register", "t-killed", "--addr", "10.0.0.1:80", "--ttl", "2s", "--", "sh", "-c", script)
	if line, _ := p.stdout.ReadString('\n'); line != "started\n" { // it takes signals
		t.Fatalf("got %q; stderr %q", line, p.stderr.String())
	}
	eventually(t, "it is registered", func() bool { return strings.Contains(p.stderr.String(), "t-killed/10.0.0.1:80") })
	p.signal(t, syscall.SIGKILL)
	if code, out := p.end(t); code != 137 || out != "got TERM\n" { // its output ends with the command
		t.Errorf("exit %d, stdout %q, want 137 and the command ended by SIGTERM", code, out)
	}
}

// TestSignals: commands that follow end with the signal's code.
func TestSignals(t *testing.T) {
	endpoint := sharedEtcd(t)
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		p := launch(t, endpoint, "watch", "t-signals", "-o", "json")
		line, _ := p.stdout.ReadString('\n')
		wantIn(t, "first line", line, `"kind":"InstanceList"`, `"instances":[]`)
		p.signal(t, sig)
		if code, _ := p.end(t); code != want || p.stderr.String() != "" {
			t.Errorf("%v: exit %d with %q, want %d", sig, code, p.stderr.String(), want)
		}
	}
}
