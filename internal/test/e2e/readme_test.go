// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/markdown"
)

const readme = "../../../README.md"

// The README's Go is compiled: each block stands in one of these files or in docs of etcd's package, whose
// import lines are tested in document_test.go.
func TestReadmeGo(t *testing.T) {
	files := []string{"../../../example_test.go", "../../../examples/server/main.go", "../../../examples/client/main.go"}
	for _, block := range markdown.Read(t, readme, "go") {
		if strings.HasPrefix(block.Text, "import (") {
			continue
		}
		markdown.CheckGo(t, readme, block, files...)
		if lines := strings.Count(block.Text, "\n") - 2; strings.HasPrefix(block.Text, "func main()") && lines > 12 {
			t.Errorf("%d lines of body, more than 12:\n%s", lines, block.Text)
		}
	}
}

// The README's two programs run, as they stand, but for the addresses.
func TestReadmePrograms(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	addresses := strings.NewReplacer("127.0.0.1:2379", strings.TrimPrefix(etcd.Endpoints()[0], "http://"), "127.0.0.1:50051", freeAddr(t))
	server := exec.CommandContext(lab.Context(t), build(t, "server", addresses))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	call := build(t, "client", addresses)
	for {
		stdout.Reset()
		client := exec.CommandContext(lab.Context(t), call)
		client.Stdout, client.Stderr = &stdout, &stderr
		if err := client.Run(); err != nil {
			t.Fatalf("%v: %s", err, &stderr)
		}
		if strings.Contains(stdout.String(), "SERVING") {
			break
		}
		if lab.Context(t).Err() != nil {
			t.Fatalf("the client was not served: %s", &stdout)
		}
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if resp, err := etcd.Client(t).Get(lab.Context(t), "my-service/", clientv3.WithPrefix()); err != nil || resp.Count != 0 {
		t.Errorf("%d endpoints after the server has ended, %v", resp.Count, err)
	}
}

// build builds one of the programs in examples with other addresses.
func build(t *testing.T, name string, addresses *strings.Replacer) (path string) {
	t.Helper()
	dir := t.TempDir()
	source, err := filepath.Abs("../../../examples/" + name + "/main.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	changed, overlay, path := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, name)
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(changed, []byte(addresses.Replace(string(text))), 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(lab.Context(t), "go", "build", "-overlay", overlay, "-o", path, "./examples/"+name)
	cmd.Dir = "../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// The README's commands run, as they stand. The demo and the tests themselves are what CI runs besides.
func TestReadmeCommands(t *testing.T) {
	bin := t.TempDir()
	shell := markdown.NewShell(t, "../../..", "GOBIN="+bin, "PATH="+bin+":"+os.Getenv("PATH"))
	shell.Rewrite = func(line string) string {
		if command := strings.TrimSpace(line); command == "go test ./..." || strings.HasSuffix(command, "demo") {
			return ":"
		}
		return line
	}
	printed := shell.Run(readme, markdown.Read(t, readme, "sh"))
	for _, part := range []string{"my-service", `"kind": "InstanceList"`, "127.0.0.1:50051"} {
		if !strings.Contains(printed, part) {
			t.Errorf("the output lacks %q:\n%s", part, printed)
		}
	}
}
