// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 1, 2, 3, 4, 6, 0, time.FixedZone("", 3600))

var some = []file{{"rollcall", []byte("program"), 0o755}, {"man/rollcall.1", []byte("page"), 0o644}}

func TestTar(t *testing.T) {
	first, err := packTar("x", some, at)
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := packTar("x", some, at.UTC()); !bytes.Equal(first, second) {
		t.Error("the same files in another zone make another archive")
	}
	z, err := gzip.NewReader(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	for _, want := range some {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		if h.Name != "x/"+want.name || os.FileMode(h.Mode) != want.mode || !h.ModTime.Equal(at) || h.Uid != 0 || h.Uname != "" || !bytes.Equal(data, want.data) {
			t.Errorf("%+v with %q", h, data)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("%v at the end", err)
	}
}

func TestZip(t *testing.T) {
	first, err := packZip("x", some, at)
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := packZip("x", some, at.UTC()); !bytes.Equal(first, second) {
		t.Error("the same files in another zone make another archive")
	}
	r, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range some {
		if f := r.File[i]; f.Name != "x/"+want.name || f.Mode() != want.mode || !f.Modified.Equal(at) {
			t.Errorf("%+v", f.FileHeader)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dist")
	for _, name := range []string{"old", "a"} { // the second replaces the first
		if err := writeRelease(dir, []file{{name, []byte("text"), 0o644}}); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if want := fmt.Sprintf("%x  a\n", sha256.Sum256([]byte("text"))); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("the folder has %v", entries)
	}
}

func TestFolderOfOthers(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "main.go")
	if err := os.WriteFile(precious, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeRelease(dir, nil); err == nil {
		t.Error("a folder that is no release is replaced")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestBillOfMaterials(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Path: "example.com/x"}, Deps: []*debug.Module{
		{Path: "example.com/a", Version: "v1.0.0", Sum: "h1:a"},
		{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/c", Version: "v2.0.0", Sum: "h1:c"}},
	}}
	r := &release{version: "v0.1.0", commit: "abc", date: at}
	text, err := billOfMaterials(r, info, "linux/amd64", []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	var b bill
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range b.Components {
		names = append(names, c.PURL)
	}
	want := "pkg:golang/std@1.26.0 pkg:golang/example.com/a@v1.0.0 pkg:golang/example.com/c@v2.0.0"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("components are %s, want %s", got, want)
	}
	if b.Metadata.Component.Version != "v0.1.0" || b.Metadata.Timestamp != "2026-01-02T02:04:06Z" || len(b.Depends[0].On) != len(names) {
		t.Errorf("%s", text)
	}
}

func TestLicences(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	if err := addLicences(&b, "m v1", dir); err == nil {
		t.Error("a module without a licence is accepted")
	}
	for name, text := range map[string]string{"LICENSE.txt": "the licence", "NOTICE": "the notice", "licenses.go": "package x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := addLicences(&b, "m v1", dir); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "m v1: LICENSE.txt") || !strings.Contains(text, "the notice") || strings.Contains(text, "package x") {
		t.Errorf("%s", text)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{}, {"-version", "v1"}, {"-version", "v1", "-commit", "a", "-date", "today"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
