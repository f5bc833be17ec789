// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestBinaries(t *testing.T) {
	for name := range packages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arg := "version"
			if name == "etcd" {
				arg = "--version"
			}
			out, err := exec.Command(Binary(t, name), arg).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "ersion: 3.") {
				t.Errorf("%s %s: %v, %s", name, arg, err, out)
			}
		})
	}
}

func TestUnknownBinary(t *testing.T) {
	r := &record{TB: t}
	r.run(func() { Binary(r, "etcdfoo") })
	if !strings.Contains(r.fatal, "etcdfoo") {
		t.Errorf("failure %q, want one that names the binary", r.fatal)
	}
}

// What fails to build leaves nothing that could pass for a binary.
func TestFailedBuildLeavesNothing(t *testing.T) {
	tools, err := toolsDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "etcd")
	if err := build(tools, "example.invalid/none", path); err == nil {
		t.Error("build of a package that does not exist succeeded")
	}
	if exists(path) {
		t.Error("a failed build left a file")
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(path, false); err == nil {
		t.Error("a second lock was given")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		second, err := lockFile(path, true)
		if err != nil {
			t.Error(err)
			return
		}
		second()
	})
	unlock()
	wg.Wait()
}

func TestReservedPortsDiffer(t *testing.T) {
	seen := make(map[int]bool)
	for range 50 {
		port := reservePort(t)
		if seen[port] {
			t.Errorf("port %d was given twice", port)
		}
		seen[port] = true
	}
}
