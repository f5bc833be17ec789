// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/terminal"
)

// rollcallIn starts a command line in a terminal of 80 x 24.
func rollcallIn(tb testing.TB, env []string, args ...string) *terminal.Terminal {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), runVariable+"=1", "TERM=xterm-256color", "ROLLCALL_DIAL_TIMEOUT=10s", "NO_COLOR="), env...)
	return terminal.Start(tb, cmd, 80, 24)
}

func topOf(tb testing.TB, endpoint string, args ...string) *terminal.Terminal {
	tb.Helper()
	return rollcallIn(tb, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, append([]string{"top"}, args...)...)
}

func TestTop(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-1"}}`)
	put1(t, client, "pay/a", `{"Addr":"10.0.1.1:80"}`)
	x := topOf(t, server.Endpoint())
	x.Await("2 services, 3 instances", "> pay")
	lease, err := client.Grant(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	put1(t, client, "shop/c", `{"Addr":"10.0.0.3:80"}`, clientv3.WithLease(lease.ID))
	x.Await("+ shop/c  10.0.0.3:80  joined, serving", "2 services, 4 instances")
	x.Await("- shop/c  10.0.0.3:80  expired (its lease is gone)", "2 services, 3 instances")

	x.Type("\x1b[B\r") // down, enter
	x.Await("shop: 2 instances", "> a   10.0.0.1:80  serving")
	x.Type("d")
	x.Await("drain shop/a (10.0.0.1:80)? y/n")
	x.Type("n")
	x.Await("nothing was written", "> a   10.0.0.1:80  serving")
	x.Type("d")
	x.Await("drain shop/a (10.0.0.1:80)? y/n")
	x.Type("y")
	x.Await("drained shop/a", "> a   10.0.0.1:80  draining", "~ a  10.0.0.1:80  drained")
	wantIn(t, "value", valueOf(t, client, "shop/a"), "draining")
	x.Type("jd")
	x.Await("drain shop/b (10.0.0.2:80)? y/n")
	x.Type("y")
	x.Await("cannot drain shop/b", "no other endpoint")
	x.Type("ku")
	x.Await("undrain shop/a (10.0.0.1:80)? y/n")
	x.Type("y")
	x.Await("undrained shop/a", "~ a  10.0.0.1:80  undrained", "> a   10.0.0.1:80  serving")

	x.Type("/eu-1\r")
	x.Await(`1 of 2 match "eu-1"`, "> b   10.0.0.2:80")
	x.Resize(40, 12)
	x.AwaitScreen("all fits into 40 columns", func(screen string) bool {
		for _, line := range strings.Split(screen, "\n") {
			if len([]rune(line)) > 40 {
				return false
			}
		}
		return strings.Contains(screen, "> b") && strings.Contains(screen, "? help  q quit  esc back")
	})
	x.Type("\x1b")
	x.Await("sorted by id", "> b", "  a")
	x.Type("q")
	if code := x.End(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestTopOfOneService(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80"}`)
	x := topOf(t, server.Endpoint(), "shop/")
	x.Await("shop: 1 instance", "> a")
	put1(t, client, "shop/a", "\x1b]0;owned\x07")
	x.Await("invalid", "(invalid: ")
	put1(t, client, "shop/\x1b[31mred", `{"Addr":"\u001b[2J:80","Metadata":{"zone":"\u202e"}}`)
	x.Await(`\x1b[31mred`, `\u202e`)
	for _, bad := range []string{"\x1b]0;owned", "\x1b[31mred", "\u202e"} {
		if strings.Contains(x.Written(), bad) {
			t.Errorf("%q was written to the terminal", bad)
		}
	}
	x.Type("q")
	x.End()
}

func TestTopWithoutColors(t *testing.T) {
	server := freshEtcd(t)
	put1(t, etcdClient(t, server.Endpoint()), "shop/a", `{"Addr":"10.0.0.1:80"}`)
	put1(t, etcdClient(t, server.Endpoint()), "shop/b", `{"Addr":"10.0.0.1:80","Metadata":{"status":"draining"}}`)
	color := regexp.MustCompile(`\x1b\[([0-9;]*;)?(3|4|9|10)[0-8][;m]`)
	for value, want := range map[string]bool{"": true, "1": false, "please": false} {
		x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint(), "NO_COLOR=" + value}, "top", "shop")
		x.Await("> a", "draining")
		x.Type("q")
		x.End()
		if got := color.FindString(x.Written()); (got != "") != want {
			t.Errorf("NO_COLOR=%s: colour %q, want some: %v", value, got, want)
		}
	}
}

func TestTopOutage(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80"}`)
	x := topOf(t, etcd.Endpoints()[0], "shop")
	x.Await("shop: 1 instance")
	etcd.Member(0).Stop()
	x.Await("! STALE since ", "what is shown is of that time", "connection refused", "> a   10.0.0.1:80  serving")
	etcd.Member(0).Start()
	x.AwaitScreen("no banner", func(screen string) bool { return !strings.Contains(screen, "STALE") })
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80"}`)
	x.Await("+ b  10.0.0.2:80")
	x.Type("q")
	if code := x.End(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// However top ends, the terminal is as it was: End checks that.
func TestTopInterrupted(t *testing.T) {
	server := freshEtcd(t)
	for want, interrupt := range map[int]func(x *terminal.Terminal){
		130: func(x *terminal.Terminal) { x.Type("\x03") },
		143: func(x *terminal.Terminal) { x.Signal(syscall.SIGTERM) },
	} {
		x := topOf(t, server.Endpoint(), "nothing-")
		x.Await(`no service starts with "nothing-" now`)
		interrupt(x)
		if code := x.End(); code != want {
			t.Errorf("exit %d, want %d", code, want)
		}
	}
}

func TestTopRefuses(t *testing.T) {
	r := rollcallAt(t, "127.0.0.1:1", "top")
	if r.code != exitUsage || r.stdout != "" {
		t.Errorf("exit %d, stdout %q", r.code, r.stdout)
	}
	wantIn(t, "stderr", r.stderr, "needs a terminal", "rollcall watch", "rollcall ls")
	x := topOf(t, "127.0.0.1:1")
	if code := x.End(); code != exitUnreachable {
		t.Errorf("exit %d, want %d", code, exitUnreachable)
	}
	wantIn(t, "screen", x.Screen(), "rollcall: ")
}

// ping redraws one line while it asks, and leaves only the result.
func TestPingProgress(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for i := range 3 {
		put1(t, client, fmt.Sprintf("ping/%d", i), `{"Addr":"`+mute.Addr().String()+`"}`)
	}
	x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "ping", "ping", "--timeout", "2s")
	x.Await("0 of 3 endpoints asked")
	x.Await("0 of 3 endpoints answer")
	if code := x.End(); code != exitOther {
		t.Errorf("exit %d, want %d", code, exitOther)
	}
	if screen := x.Screen(); strings.Contains(screen, "asked") || !strings.HasPrefix(screen, "ID ") {
		t.Errorf("the screen is\n%s", screen)
	}
}

// TestWatchOnTerminal: what was there, what comes and why it goes appear as they happen, until Ctrl-C.
func TestWatchOnTerminal(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80"}`)
	x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "watch", "shop")
	x.Await("endpoints now: 1", "= a  10.0.0.1:80")
	put1(t, client, "shop/b\x1b[2J", `{"Addr":"10.0.0.2:80","Metadata":{"status":"draining"}}`)
	x.Await(`+ b\x1b[2J  10.0.0.2:80`)
	if _, err := client.Delete(t.Context(), "shop/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	x.Await("- a         10.0.0.1:80  deleted by hand (no lease ended)", "left (it was draining)")
	x.Type("\x03")
	if code := x.End(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
}

// On a terminal, ls and get are as wide as it, with a mark where something is cut.
func TestTablesFitTerminal(t *testing.T) {
	server := freshEtcd(t)
	put1(t, etcdClient(t, server.Endpoint()), "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"note":"`+strings.Repeat("long ", 40)+`"}}`)
	x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "get", "shop")
	x.Await("ID ", "…")
	x.End()
	if lines := strings.Split(strings.TrimRight(x.Screen(), "\n"), "\n"); len(lines) != 2 || len([]rune(lines[1])) > 80 {
		t.Errorf("the screen is\n%s", x.Screen())
	}
}

// BenchmarkTop reports which share of a core top takes while it shows 10,000 endpoints of which 100 change
// each second: those of 100 services, and those of one that is opened.
func BenchmarkTop(b *testing.B) {
	const endpoints, perSecond = 10_000, 100
	for _, services := range []int{100, 1} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			etcd := etcdtest.New(b, etcdtest.Options{})
			client := etcd.Client(b)
			write := func(i, weight int) clientv3.Op {
				return clientv3.OpPut(fmt.Sprintf("svc-%02d/instance-%05d", i%services, i), fmt.Sprintf(
					`{"Addr":"10.0.%d.%d:80","Metadata":{"weight":%d,"zone":"eu-%d","version":"v1.2.3","started":"2026-01-02T03:04:05Z","host":"web-%d"}}`,
					i/250, i%250, weight, i%3, i))
			}
			for i := 0; i < endpoints; i += 100 {
				var ops []clientv3.Op
				for j := range 100 {
					ops = append(ops, write(i+j, 1))
				}
				if _, err := client.Txn(b.Context()).Then(ops...).Commit(); err != nil {
					b.Fatal(err)
				}
			}
			x := topOf(b, etcd.Endpoints()[0])
			x.Await("10000 instances")
			if services == 1 {
				x.Type("\r")
				x.Await("svc-00: 10000 instances")
			}
			ctx, cancel := context.WithCancel(b.Context())
			var writing sync.WaitGroup
			writing.Go(func() {
				pace := time.NewTicker(time.Second / perSecond)
				defer pace.Stop()
				for i := 0; ctx.Err() == nil; i++ {
					_, _ = client.Do(ctx, write(i*7919%endpoints, 2+i%9))
					<-pace.C
				}
			})
			time.Sleep(2 * time.Second)
			began, used := time.Now(), x.CPU()
			time.Sleep(10 * time.Second)
			used = x.CPU() - used
			b.ReportMetric(100*used.Seconds()/time.Since(began).Seconds(), "%core")
			cancel()
			writing.Wait()
			x.Type("q")
			x.End()
		})
	}
}
