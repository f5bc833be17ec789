// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// The shortest server and client of example_test.go, which the README shows, run as
// programs, and their bodies have at most 12 lines.
func TestShortestMains(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	program := buildMains(t, strings.TrimPrefix(etcd.Endpoints()[0], "http://"))
	server := exec.Command(program, "serve")
	var stderr bytes.Buffer
	server.Stderr = &stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill() })
	ctx := lab.Context(t)
	for {
		out, err := exec.CommandContext(ctx, program, "call").CombinedOutput()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no call succeeds: %v\n%s\nserver:\n%s", err, out, &stderr)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("server: %v\n%s", err, &stderr)
	}
	resp, err := etcd.Client(t).Get(ctx, "", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 0 {
		t.Errorf("left in etcd: %v, %v", resp.Kvs, err)
	}
}

// buildMains builds a program of the functions serve and call, at the addresses of this test.
func buildMains(t *testing.T, etcd string) (path string) {
	t.Helper()
	text, err := os.ReadFile("../../../example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	source := `package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/resolver"
	"github.com/rollcall-grpc/rollcall/serving"
)

func main() {
	if err := map[string]func() error{"serve": serve, "call": call}[os.Args[1]](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
`
	for _, name := range []string{"serve", "call"} {
		_, rest, found := strings.Cut(string(text), "\nfunc "+name+"() error {\n")
		body, _, ended := strings.Cut(rest, "\n}\n")
		if !found || !ended {
			t.Fatalf("no function %s", name)
		}
		if lines := strings.Count(body, "\n") + 1; name == "serve" && lines > 12 {
			t.Errorf("the body of %s has %d lines, want 12 at most", name, lines)
		}
		source += fmt.Sprintf("\nfunc %s() error {\n%s\n}\n", name, body)
	}
	source = strings.NewReplacer("127.0.0.1:2379", etcd, "127.0.0.1:50051", lis.Addr().String()).Replace(source)
	dir := t.TempDir()
	file, path := filepath.Join(dir, "main.go"), filepath.Join(dir, "mains")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", path, file)
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
