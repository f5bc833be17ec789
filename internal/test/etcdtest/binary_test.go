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
	for name := range binaries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arg, want := "version", "ersion: 3.7."
			if strings.HasPrefix(name, "etcd-") || name == "etcd" {
				arg = "--version"
			}
			if v, ok := strings.CutPrefix(name, "etcd-"); ok {
				want = "ersion: " + v + "."
			}
			out, err := exec.Command(Binary(t, name), arg).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s %s: %v, %s; want %q", name, arg, err, out, want)
			}
		})
	}
}

func TestEveryVersion(t *testing.T) {
	for _, version := range []string{"3.4", "3.5", "3.6", Newest} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := New(t, Options{Etcd: Etcd(t, version)})
			resp, err := c.Client(t).Status(t.Context(), c.Member(0).Addr())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(resp.Version, version+".") {
				t.Errorf("version %s, want %s", resp.Version, version)
			}
		})
	}
}

// The variable names the version of clusters that ask for none.
func TestVersionVariable(t *testing.T) {
	t.Setenv(versionVar, "3.5")
	c := New(t, Options{})
	resp, err := c.Client(t).Status(t.Context(), c.Member(0).Addr())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(resp.Version, "3.5.") {
		t.Errorf("version %s, want 3.5", resp.Version)
	}
	t.Setenv(versionVar, "2.3")
	r := &record{TB: t}
	r.run(func() { New(r, Options{}) })
	if !strings.Contains(r.fatal, "etcd-2.3") || !strings.Contains(r.fatal, "etcd-3.5") {
		t.Errorf("failure %q, want one that names the version and what there is", r.fatal)
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
