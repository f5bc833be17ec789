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
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func readme(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(match[1]))
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no %s", language)
	}
	return blocks
}

// compiled are the files that the README's Go stands in.
var compiled = []string{"example_test.go", "examples/server/main.go", "examples/client/main.go"}

// The README's Go is compiled: each block stands in one of the files above or in docs of etcd's
// package, whose import lines are tested in document_test.go.
func TestReadmeGo(t *testing.T) {
	var examples []byte
	for _, file := range compiled {
		text, err := os.ReadFile("../../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		examples = append(examples, text...)
	}
	for _, block := range readme(t, "go") {
		if !strings.HasPrefix(block, "import (") && !bytes.Contains(examples, []byte(block)) {
			t.Errorf("not in %v:\n%s", compiled, block)
		}
		if lines := strings.Count(block, "\n") - 2; strings.HasPrefix(block, "func main()") && lines > 12 {
			t.Errorf("%d lines of body, more than 12:\n%s", lines, block)
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

// The README's commands run, as they stand, but for the addresses of etcd and serve. The
// demo and the tests themselves are what CI runs besides.
func TestReadmeCommands(t *testing.T) {
	addr := freeAddr(t)
	var script strings.Builder
	script.WriteString("set -e\ntrap 'kill -INT $(jobs -p); wait' EXIT\n")
	for _, block := range readme(t, "sh") {
		for line := range strings.Lines(block) {
			switch command := strings.TrimSpace(line); {
			case command == "go test ./...", strings.HasSuffix(command, "demo"):
			case strings.HasPrefix(command, "rollcall dev &"):
				script.WriteString("rollcall dev --listen " + addr + " &\nfor i in $(seq 300); do rollcall ls >/dev/null 2>&1 && break; sleep 0.1; done\n")
			case strings.HasPrefix(command, "rollcall serve &"):
				script.WriteString("rollcall serve --xds " + freeAddr(t) + " --admin " + freeAddr(t) + " &\n")
			default:
				script.WriteString(command + "\n")
			}
		}
	}
	bin := t.TempDir()
	cmd := exec.CommandContext(lab.Context(t), "bash", "-c", script.String())
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "PATH="+bin+":"+os.Getenv("PATH"), "ROLLCALL_ENDPOINTS="+addr)
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\nstdout:\n%s\nstderr:\n%s", err, script.String(), &stdout, &stderr)
	}
	for _, part := range []string{"my-service", `"kind": "InstanceList"`, "127.0.0.1:50051"} {
		if !strings.Contains(stdout.String(), part) {
			t.Errorf("the output lacks %q:\n%s", part, &stdout)
		}
	}
}
