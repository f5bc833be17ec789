// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var cold = flag.Bool("cold", false, "build the second release with an empty build cache")

// TestReproducible builds the release for one platform in two folders, and compares. Then it looks into the archive.
func TestReproducible(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	copySource(t, copied, root)
	first := releaseOf(t, root)
	if *cold {
		t.Setenv("GOCACHE", t.TempDir())
	}
	second := releaseOf(t, copied)
	if a, b := slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(second)); !slices.Equal(a, b) {
		t.Fatalf("one release has %q, the other %q", a, b)
	}
	for name := range first {
		if !bytes.Equal(first[name], second[name]) {
			t.Errorf("%s differs", name)
		}
	}
	checkArchive(t, first["rollcall_0.0.1_linux_"+runtime.GOARCH+".tar.gz"])
}

func checkArchive(t *testing.T, archive []byte) {
	files := unpack(t, archive)
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "man/rollcall.1", "man/rollcall-register.1",
		"completions/rollcall.bash", "completions/rollcall.zsh", "completions/rollcall.fish", "completions/rollcall.powershell"} {
		if len(files[name]) == 0 {
			t.Errorf("the archive has no %s", name)
		}
	}
	for _, module := range []string{"Go's standard library go1.", "google.golang.org/grpc v", "go.etcd.io/etcd/client/v3 v"} {
		if !bytes.Contains(files["LICENSES.txt"], []byte("\n"+module)) {
			t.Errorf("LICENSES.txt has no %s", module)
		}
	}
	modules, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(files["rollcall"], bytes.TrimSpace(modules)) {
		t.Error("the binary has paths of this machine")
	}
	binary := filepath.Join(t.TempDir(), "rollcall")
	if err := os.WriteFile(binary, files["rollcall"], 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "version").CombinedOutput()
	if err != nil {
		t.Fatalf("version: %v: %s", err, out)
	}
	for _, want := range []string{"v0.0.1\n", "0123abcd\n", "2026-01-02T02:04:06Z\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("version does not say %q: %s", want, out)
		}
	}
}

// releaseOf returns the files of a release that is built in a folder.
func releaseOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	t.Chdir(dir)
	out := t.TempDir()
	err := run(t.Context(), []string{"-version", "v0.0.1", "-commit", "0123abcd", "-date", "2026-01-02T03:04:06+01:00",
		"-targets", "linux/" + runtime.GOARCH, "-out", out})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(out, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// copySource copies the source, without what is built or downloaded.
func copySource(t *testing.T, to, from string) {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name != "." && (strings.HasPrefix(name, ".") || slices.Contains([]string{"bin", "dist", "coverage", "node_modules"}, e.Name())) {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// unpack returns the files of a tar.gz by their names below its folder.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(path.Clean(h.Name), "/")
		if files[name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
