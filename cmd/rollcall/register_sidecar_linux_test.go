// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-grpc/rollcall/internal/test/terminal"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// sidecars is the example: a Python server that knows nothing of etcd.
const sidecars = "../../examples/sidecar"

// pythonServer is a Python server under rollcall register, which checks it twice a second.
type pythonServer struct {
	*process
	addr, ready, key string
	client           *clientv3.Client
}

func startPython(t *testing.T, endpoint, service string) *pythonServer {
	t.Helper()
	s := &pythonServer{addr: freeAddr(t), ready: freeAddr(t), client: etcdClient(t, endpoint)}
	s.key = service + "/" + s.addr
	s.process = launch(t, endpoint, "register", service, "--addr", s.addr, "--check", "grpc", "--ttl", "5s", "--drain", "1s",
		"--interval", "500ms", "--fall", "2", "--ready-http", s.ready, "--", "/usr/bin/python3", filepath.Join(sidecars, "server.py"), s.addr)
	return s
}

// needPython skips a test where there is no Python with gRPC, but not in CI.
func needPython(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skipf("needs Debian's python3-grpcio and python3-protobuf: %v", err)
	}
}

// pid is the process id of the Python server.
func (s *pythonServer) pid(t *testing.T) int {
	t.Helper()
	children := childrenOf(t, s.cmd.Process.Pid)
	if len(children) != 1 {
		t.Fatalf("children of register: %v, want one", children)
	}
	return children[0]
}

// childrenOf returns the children of a process, with those that have ended and were not waited for.
func childrenOf(t *testing.T, parent int) (children []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has gone
		}
		var state string
		var ppid int
		_, rest, _ := strings.Cut(string(data), ") ")
		if _, err := fmt.Sscan(rest, &state, &ppid); err == nil && ppid == parent {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			children = append(children, pid)
		}
	}
	return children
}

// becomes waits until the endpoint is "serving", "draining" or "absent" in etcd and for probes, and
// returns how long that has taken.
func (s *pythonServer) becomes(t *testing.T, want string) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, s.key+" is "+want, func() bool {
		switch value := valueOf(t, s.client, s.key); {
		case value == "":
			return want == "absent"
		case strings.Contains(value, "draining"):
			return want == "draining"
		}
		return want == "serving"
	})
	took := time.Since(began)
	eventually(t, "/readyz agrees that "+s.key+" is "+want, func() bool {
		return (s.probe(t, "readyz") == http.StatusOK) == (want == "serving")
	})
	if code := s.probe(t, "livez"); code != http.StatusOK {
		t.Errorf("/livez answers %d", code)
	}
	return took
}

func (s *pythonServer) probe(t *testing.T, path string) (code int) {
	t.Helper()
	resp, err := http.Get("http://" + s.ready + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestRegisterSidecar has a Python server under a check go through all that it can go through, while
// a Go client calls it and another one of its kind. No call fails when it is told to end.
func TestRegisterSidecar(t *testing.T) {
	t.Parallel()
	needPython(t)
	endpoint := sharedEtcd(t)
	s, other := startPython(t, endpoint, "t-sidecar"), startPython(t, endpoint, "t-sidecar")
	for _, one := range []*pythonServer{s, other} {
		eventually(t, "it is probed", func() bool {
			conn, err := net.Dial("tcp", one.ready)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		one.becomes(t, "serving")
	}
	python := s.pid(t)
	send := func(to int, sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(to, sig); err != nil {
			t.Fatal(err)
		}
	}
	send(python, syscall.SIGSTOP)
	out := s.becomes(t, "draining") // two checks of up to 1 s
	send(python, syscall.SIGCONT)
	back := s.becomes(t, "serving")
	send(s.cmd.Process.Pid, syscall.SIGUSR1) // passed on: the server says NOT_SERVING
	sick := s.becomes(t, "draining")
	send(s.cmd.Process.Pid, syscall.SIGUSR2)
	s.becomes(t, "serving") // after a hold-down of 5 s
	t.Logf("stopped: out after %v; continued: back after %v; NOT_SERVING: out after %v", out, back, sick)

	load := callGreeter(t, s.client, "t-sidecar")
	eventually(t, "both are called", func() bool { return load.calls(s.addr) > 100 && load.calls(other.addr) > 100 })
	send(s.cmd.Process.Pid, syscall.SIGTERM)
	if code, _ := s.end(t); code != 0 {
		t.Errorf("exit %d; stderr %q", code, s.stderr.String())
	}
	if valueOf(t, s.client, s.key) != "" {
		t.Error("it is listed still")
	}
	load.end(t)
	wantIn(t, "stderr", s.stderr.String(), "is unhealthy; draining it: grpc: no answer within 1s", `gRPC health of "" is NOT_SERVING`,
		"is healthy, but failed too often lately; its return is delayed until ", "passing SIGTERM on in 1s")

	// The end of the command takes its endpoint out at once.
	began := time.Now()
	send(other.pid(t), syscall.SIGKILL)
	if code, _ := other.end(t); code != 137 {
		t.Errorf("exit %d, want 137", code)
	}
	if valueOf(t, other.client, other.key) != "" || time.Since(began) > 3*time.Second {
		t.Errorf("removed after %v", time.Since(began))
	}
}

// greeterLoad are callers of a greeter.
type greeterLoad struct {
	stop    context.CancelFunc
	callers sync.WaitGroup
	mu      sync.Mutex
	answers map[string]int // by address
	failed  atomic.Pointer[error]
}

func callGreeter(t *testing.T, client *clientv3.Client, service string) *greeterLoad {
	t.Helper()
	conn, err := resolver.NewClient(client, service, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &greeterLoad{answers: make(map[string]int)}
	l.stop = func() {
		cancel()
		l.callers.Wait()
		conn.Close()
	}
	t.Cleanup(l.stop)
	for range 4 {
		l.callers.Go(func() {
			for ctx.Err() == nil {
				answer := new(wrapperspb.StringValue)
				err := conn.Invoke(ctx, "/greeter.Greeter/Greet", wrapperspb.String("you"), answer)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					l.failed.Store(&err)
				}
				_, addr, _ := strings.Cut(answer.Value, "this is ")
				l.mu.Lock()
				l.answers[addr]++
				l.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return l
}

func (l *greeterLoad) calls(addr string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[addr]
}

func (l *greeterLoad) end(t *testing.T) {
	t.Helper()
	l.stop()
	t.Logf("calls by server: %v", l.answers)
	if err := l.failed.Load(); err != nil {
		t.Errorf("%d calls failed, one of them with %v", l.answers[""], *err)
	}
}

// A check that passes and fails in turn is written in, out, in and out; then its return is delayed.
func TestRegisterFlapping(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	file := filepath.Join(t.TempDir(), "sick")
	p := launch(t, endpoint, "register", "t-flap", "--addr", "10.0.0.1:80", "--check", "exec:test ! -e "+file+" && touch "+file+" || ! rm "+file,
		"--interval", "100ms", "--timeout", "10s", "--fall", "1", "--rise", "1", "--drain", "0s", "--", "sleep", "60")
	eventually(t, "its return is delayed", func() bool { return strings.Contains(p.stderr.String(), "its return is delayed until ") })
	resp, err := client.Get(t.Context(), "t-flap/10.0.0.1:80")
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%v, %v; stderr %q", resp, err, p.stderr.String())
	}
	// Each write was reported before.
	reported := strings.Count(p.stderr.String(), "registering it") + strings.Count(p.stderr.String(), "draining it")
	if n := resp.Kvs[0].Version; int(n) > reported {
		t.Errorf("written %d times, want %d at most; stderr %q", n, reported, p.stderr.String())
	}
	before, _, _ := strings.Cut(p.stderr.String(), "its return is delayed")
	if n := strings.Count(before, "; draining it"); n != 2 || strings.Count(before, "; undraining it") != 1 {
		t.Errorf("stderr %q, want it drained twice and undrained once before", before)
	}
	p.signal(t, syscall.SIGTERM)
	if code, _ := p.end(t); code != 143 {
		t.Errorf("exit %d, want 143", code)
	}
}

// What an operator has drained stays drained when the check passes again.
func TestRegisterKeepsAnOperatorsDrain(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	file := filepath.Join(t.TempDir(), "sick")
	p := launch(t, endpoint, "register", "t-op", "--addr", "10.0.0.1:80", "--id", "a", "--check", "exec:test ! -e "+file,
		"--interval", "100ms", "--fall", "1", "--rise", "1", "--drain", "0s", "--", "sleep", "60")
	holds := func(part string) {
		t.Helper()
		eventually(t, "it holds "+part, func() bool { return strings.Contains(valueOf(t, client, "t-op/a"), part) })
	}
	holds(`"started"`)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	holds("draining")
	must(t, endpoint, "drain", "t-op", "a")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it passes again", func() bool { return strings.Contains(p.stderr.String(), "is healthy again") })
	time.Sleep(300 * time.Millisecond)
	holds("draining")
	must(t, endpoint, "undrain", "t-op", "a")
	eventually(t, "it serves", func() bool { return !strings.Contains(valueOf(t, client, "t-op/a"), "draining") })
	p.signal(t, syscall.SIGINT)
	if code, _ := p.end(t); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
}

// The first SIGTERM waits until clients have moved, also where it is sent to the whole process
// group; the second one does not.
func TestRegisterDrainsBeforeItSignals(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-order/10.0.0.1:80"
	for _, row := range []struct {
		name   string
		group  bool
		second bool
		drain  string
		after  time.Duration
	}{
		{"one signal", false, false, "1s", time.Second},
		{"to the group", true, false, "1s", time.Second},
		{"a second signal", false, true, "60s", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := launchWith(t, endpoint, &syscall.SysProcAttr{Setsid: true}, "register", "t-order", "--addr", "10.0.0.1:80",
				"--drain", row.drain, "--", "sh", "-c", script)
			if line, _ := p.stdout.ReadString('\n'); line != "started\n" {
				t.Fatalf("got %q", line)
			}
			eventually(t, "it is registered", func() bool { return strings.Contains(p.stderr.String(), key) })
			began := time.Now()
			to := p.cmd.Process.Pid
			if row.group {
				to = -to
			}
			if err := syscall.Kill(to, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is draining", func() bool { return strings.Contains(valueOf(t, client, key), "draining") })
			if row.second {
				p.signal(t, syscall.SIGTERM)
			}
			line, _ := p.stdout.ReadString('\n')
			took := time.Since(began)
			if line != "got TERM\n" || took < row.after || took > row.after+20*time.Second {
				t.Errorf("%q after %v, want it soon after %v", line, took, row.after)
			}
			if !row.second && valueOf(t, client, key) != "" {
				t.Error("the command was told to end before the endpoint was removed")
			}
			if code, _ := p.end(t); code != 8 {
				t.Errorf("exit %d, want 8", code)
			}
			if got := valueOf(t, client, key); got != "" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// A second signal goes in place of the first, which the command does not get as well.
func TestRegisterSecondSignal(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	p := launch(t, endpoint, "register", "t-second", "--addr", "10.0.0.1:80", "--drain", "1s", "--", "sh", "-c",
		`trap 'echo got TERM' TERM; echo started; i=0; while [ $i -lt 60 ]; do sleep 0.05; i=$((i+1)); done`)
	_, _ = p.stdout.ReadString('\n')
	eventually(t, "it is registered", func() bool { return strings.Contains(p.stderr.String(), "t-second/10.0.0.1:80") })
	p.signal(t, syscall.SIGTERM)
	eventually(t, "it is draining", func() bool { return strings.Contains(valueOf(t, client, "t-second/10.0.0.1:80"), "draining") })
	p.signal(t, syscall.SIGTERM)
	if code, out := p.end(t); code != 0 || out != "got TERM\n" {
		t.Errorf("exit %d, stdout %q, want one signal; stderr %q", code, out, p.stderr.String())
	}
}

// An endpoint that an operator has just drained is given what is left of --drain.
func TestRegisterJustDrained(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	p := launch(t, endpoint, "register", "t-just", "--addr", "10.0.0.1:80", "--drain", "60s", "--", "sh", "-c", script)
	eventually(t, "it is registered", func() bool { return strings.Contains(p.stderr.String(), "t-just/10.0.0.1:80") })
	must(t, endpoint, "drain", "t-just", "10.0.0.1:80", "--force")
	eventually(t, "it knows", func() bool { return strings.Contains(p.stderr.String(), "is draining") })
	p.signal(t, syscall.SIGTERM)
	eventually(t, "it waits", func() bool { return strings.Contains(p.stderr.String(), "is draining; passing SIGTERM on in ") })
	p.signal(t, syscall.SIGTERM)
	if code, _ := p.end(t); code != 8 {
		t.Errorf("exit %d, want 8", code)
	}
}

// Without a host, --addr is the address towards etcd, and that is told.
func TestRegisterFindsItsAddress(t *testing.T) {
	endpoint := sharedEtcd(t)
	s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, "register", "t-addr", "--addr", ":50051")
	eventually(t, "it is registered", func() bool { return strings.Contains(s.stdout.String(), "t-addr/127.0.0.1:50051") })
	wantIn(t, "stderr", s.stderr.String(), "advertising 127.0.0.1:50051", "other hosts cannot reach it", "--addr HOST:50051")
	s.interrupt()
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A key that somebody has put to stay is taken over only if asked.
func TestRegisterOverAKeyWithoutLease(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	put1(t, client, "t-stay/a", `{"Addr":"10.0.0.9:80"}`)
	r := rollcallAt(t, endpoint, "register", "t-stay", "--id", "a", "--addr", "10.0.0.1:80", "--", "echo", "started")
	if r.code != exitOther || r.stdout != "" {
		t.Errorf("exit %d, stdout %q", r.code, r.stdout)
	}
	wantIn(t, "stderr", r.stderr, "without a lease", "--force")
	r = rollcallAt(t, endpoint, "register", "t-stay", "--id", "a", "--addr", "10.0.0.1:80", "--force", "--", "sleep", "0.5")
	if r.code != 0 || valueOf(t, client, "t-stay/a") != "" {
		t.Errorf("exit %d, %q", r.code, r.stderr)
	}
}

func TestRegisterRefuses(t *testing.T) {
	endpoint := sharedEtcd(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--check", "ping"}, `--check "ping": unknown kind; want grpc`},
		{[]string{"--check", "tcp", "--interval", "0s"}, "--interval 0s"},
		{[]string{"--check", "tcp", "--interval", "1ms"}, "--interval 1ms: must be at least 100ms"},
		{[]string{"--check", "tcp", "--timeout", "-1s"}, "--timeout -1s"},
		{[]string{"--check", "tcp", "--fall", "0"}, "--fall 0"},
		{[]string{"--check", "tcp", "--metadata", `"text"`}, `--metadata "text": it must be an object`},
		{[]string{"--rise", "3"}, "--rise needs a --check"},
		{[]string{"--drain", "-1s"}, "--drain -1s"},
		{[]string{"--ready-http", busy.Addr().String()}, "address already in use"},
	} {
		r := rollcallAt(t, endpoint, append([]string{"register", "t-refuse", "--addr", "10.0.0.1:80"}, row.args...)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, row.want) {
			t.Errorf("%v: exit %d, %q, want %d and %q", row.args, r.code, r.stderr, exitUsage, row.want)
		}
	}
	unreached := []string{"register", "t-refuse", "--addr", "10.0.0.1:80", "--check", "tcp", "--interval", "50ms"}
	if r := rollcallAt(t, "127.0.0.1:1", unreached...); r.code != exitUsage {
		t.Errorf("exit %d, %q, want %d before etcd is asked", r.code, r.stderr, exitUsage)
	}
	r := begin(t, []string{"ROLLCALL_ENDPOINTS=no-such-host.invalid:2379"}, "register", "t-refuse", "--addr", ":80")
	if code := r.end(t); code != exitUsage {
		t.Errorf("exit %d", code)
	}
	wantIn(t, "stderr", r.stderr.String(), "cannot find the address of this host towards etcd", "--addr HOST:80")
}

// On a terminal the command reads what is typed, and Ctrl-C reaches it once and at once.
func TestRegisterOnATerminal(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "register", "t-tty", "--addr", "10.0.0.1:80", "--drain", "60s", "--", "sh", "-c",
		`read -r line; trap 'echo "got INT"; exit 7' INT; echo "read $line"; while :; do sleep 0.05; done`)
	cmd.Env = append(os.Environ(), runVariable+"=1", "ROLLCALL_ENDPOINTS="+sharedEtcd(t), "ROLLCALL_DIAL_TIMEOUT=10s")
	screen := terminal.Start(t, cmd, 80, 24)
	screen.Await("t-tty/10.0.0.1:80")
	screen.Type("hello\n")
	screen.Await("read hello")
	screen.Type("\x03")
	screen.Await("got INT")
	if code := screen.End(); code != 7 {
		t.Errorf("exit %d, want 7", code)
	}
	if n := strings.Count(screen.Written(), "got INT"); n != 1 {
		t.Errorf("interrupted %d times", n)
	}
}

// The commands of the example's README run as they stand, but for the address.
func TestSidecarReadme(t *testing.T) {
	t.Parallel()
	needPython(t)
	endpoint := sharedEtcd(t)
	text, err := os.ReadFile(filepath.Join(sidecars, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, commands, _ := strings.Cut(string(text), "```sh\n")
	commands, _, ok := strings.Cut(commands, "```")
	if !ok {
		t.Fatal("the README has no commands")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", runVariable, self)
	if err := os.WriteFile(filepath.Join(bin, "rollcall"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	run := func(ctx context.Context, line string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+strings.ReplaceAll(line, "127.0.0.1:50051", addr))
		cmd.Dir = sidecars
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "ROLLCALL_ENDPOINTS="+endpoint)
		return cmd
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(commands, "\\\n", "")), "\n")
	register := run(context.Background(), strings.TrimSuffix(strings.TrimSpace(lines[0]), "&"))
	register.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := register.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = register.Process.Signal(syscall.SIGTERM)
		if err := register.Wait(); err != nil {
			t.Errorf("register: %v", err)
		}
	}()
	client := etcdClient(t, endpoint)
	eventually(t, "it is registered", func() bool { return valueOf(t, client, "greeter/"+addr) != "" })
	for _, line := range lines[1:] {
		out, err := run(t.Context(), line).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
		wantIn(t, line, string(out), addr)
	}
}
