// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"bytes"
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
	"github.com/rollcall-grpc/rollcall/internal/test/markdown"
)

// shell returns the commands in a README of the examples.
func shell(t *testing.T, folder string) string {
	t.Helper()
	return markdown.Read(t, filepath.Join(examples, folder, "README.md"), "sh")[0].Text
}

// TestReadme: the commands of the READMEs run as they stand, but for addresses: the Python server is
// registered and called by all clients.
func TestReadme(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/rollcall-grpc/rollcall/cmd/rollcall").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lis := listen(t, "")
	addr := lis.Addr().String()
	lis.Close()
	bootstrap := filepath.Join(t.TempDir(), "xds.json")
	if err := os.WriteFile(bootstrap, []byte(f.bootstrap(&language{name: "readme"}, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(script string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
		script = strings.NewReplacer("127.0.0.1:50051", addr, "BOOTSTRAP=xds.json", "BOOTSTRAP="+bootstrap).Replace(script)
		cmd = exec.CommandContext(t.Context(), "bash", "-c", "exec "+strings.TrimSpace(script))
		cmd.Dir = examples
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "ROLLCALL_ENDPOINTS="+f.etcd.Endpoints()[0])
		cmd.WaitDelay = time.Second
		stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = stdout, stderr
		return cmd, stdout, stderr
	}
	var register string
	for command := range strings.Lines(shell(t, ".")) {
		if strings.HasPrefix(command, "rollcall register ") {
			register = strings.TrimSuffix(strings.TrimSpace(command), "&")
		}
	}
	server, _, log := run(register)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		if err := server.Wait(); err != nil {
			t.Errorf("the server ended with %v: %s", err, log)
		}
		if resp, err := f.client.Get(lab.Context(t), "my-service/", clientv3.WithPrefix()); err != nil || resp.Count != 0 {
			t.Errorf("%d endpoints after the server has ended, %v", resp.Count, err)
		}
	}()
	f.awaitServer("my-service/"+addr, addr)
	t.Run("clients", func(t *testing.T) {
		for _, l := range present() {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				folder := filepath.Base(filepath.Dir(l.command[len(l.command)-1]))
				_, command, found := strings.Cut(shell(t, folder), "GRPC_XDS_BOOTSTRAP=") // what comes before has been done
				if !found {
					t.Fatal("the command names no bootstrap file")
				}
				client, stdout, stderr := run("env GRPC_XDS_BOOTSTRAP=" + command)
				if err := client.Run(); err != nil {
					t.Fatalf("%v: %s", err, stderr)
				}
				if n := strings.Count(stdout.String(), ", this is "+addr+"\n"); n != 10 {
					t.Errorf("the server was called %d times, want 10:\n%s", n, stdout)
				}
			})
		}
	})
}

// awaitServer waits until a server is registered and listens.
func (f *fixture) awaitServer(key, addr string) {
	f.t.Helper()
	ctx := lab.Context(f.t)
	for ; ; time.Sleep(20 * time.Millisecond) {
		resp, err := f.client.Get(ctx, key)
		if err != nil {
			f.t.Fatal(err)
		}
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			if resp.Count == 1 {
				return
			}
		}
	}
}
