// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
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

// The README's Go is compiled: each block stands in example_test.go or in docs of etcd's
// package, whose import lines are tested in document_test.go.
func TestReadmeGo(t *testing.T) {
	examples, err := os.ReadFile("../../../example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range readme(t, "go") {
		if !strings.HasPrefix(block, "import (") && !bytes.Contains(examples, []byte(block)) {
			t.Errorf("not in example_test.go:\n%s", block)
		}
	}
}

// The README's commands run, as they stand, but for the address of the etcd. The demo
// and the tests themselves are what CI runs besides.
func TestReadmeCommands(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	lis.Close()
	var script strings.Builder
	script.WriteString("set -e\ntrap 'kill -INT $(jobs -p); wait' EXIT\n")
	for _, block := range readme(t, "sh") {
		for line := range strings.Lines(block) {
			switch command := strings.TrimSpace(line); {
			case command == "go test ./...", strings.HasSuffix(command, "demo"):
			case strings.HasPrefix(command, "rollcall dev &"):
				script.WriteString("rollcall dev --listen " + addr + " &\nfor i in $(seq 300); do rollcall ls >/dev/null 2>&1 && break; sleep 0.1; done\n")
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
