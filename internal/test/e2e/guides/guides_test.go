// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package guides_test follows the guides in docs word for word.
package guides_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/markdown"
)

const root = "../../../.."

// newShell starts a shell as on a machine that has only Go, with all modules in its caches: there is no
// network.
func newShell(t *testing.T) *markdown.Shell {
	t.Helper()
	for _, module := range []string{root, filepath.Join(root, "tools")} {
		if out, err := exec.Command("go", "-C", module, "mod", "download").CombinedOutput(); err != nil {
			t.Fatalf("go mod download in %s: %v\n%s", module, err, out)
		}
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return markdown.NewShell(t, root, "GOPATH="+t.TempDir(), "GOBIN=", "GOMODCACHE="+strings.TrimSpace(string(cache)), "GOPROXY=off")
}

// follow runs a guide: its commands in the folder of the source, and its Go as it stands in files
// of the examples.
func follow(t *testing.T, shell *markdown.Shell, name string, files ...string) {
	t.Helper()
	path := filepath.Join(root, "docs", name)
	for i := range files {
		files[i] = filepath.Join(root, files[i])
	}
	if len(files) > 0 {
		for _, block := range markdown.Read(t, path, "go") {
			markdown.CheckGo(t, path, block, files...)
		}
	}
	shell.Run(path, markdown.Read(t, path, "sh"))
}

func TestGuide(t *testing.T) {
	t.Parallel()
	follow(t, newShell(t), "guide.md", "examples/greeter/greeter-server/main.go", "examples/greeter/greeter-client/main.go")
}

func TestFormat(t *testing.T) {
	t.Parallel()
	follow(t, newShell(t), "format.md")
}

// TestOperate builds etcd and its tools, sets up TLS and users, and restores a backup.
func TestOperate(t *testing.T) {
	t.Parallel()
	follow(t, newShell(t), "operate.md", "example_test.go")
}

// TestMigrate runs the servers of before and after beside each other, with clients of both packages.
func TestMigrate(t *testing.T) {
	t.Parallel()
	follow(t, newShell(t), "migrate.md", "examples/migrate/before/main.go", "examples/migrate/after/main.go")
}

// TestExamples runs the rolling update, which fails if a call does.
func TestExamples(t *testing.T) {
	t.Parallel()
	follow(t, newShell(t), "../examples/README.md")
}
