// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package diskcache

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	open(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v, want 0700", info.Mode(), err)
	}
}

// Who reads a file while it is saved reads the old one, whole.
func TestSaveReplacesAtOnce(t *testing.T) {
	c := open(t, t.TempDir())
	save(t, c, "svc", Content{Revision: 1, Entries: []byte("[]")})
	old, err := os.Open(c.Path("svc"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	save(t, c, "svc", Content{Revision: 2, Entries: []byte("[1]")})
	data, err := io.ReadAll(old)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parse("svc", data); err != nil || got.Revision != 1 {
		t.Errorf("got %+v, %v, want revision 1", got, err)
	}
}

// A disk that hangs, here a pipe that nobody writes to, is waited for by nobody but the
// reader, for as long as its context says; another name can be read meanwhile.
func TestSlowDisk(t *testing.T) {
	c := open(t, t.TempDir())
	save(t, c, "other", Content{Entries: []byte("[]")})
	if err := syscall.Mkfifo(c.Path("svc"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c.Do(ctx, func() { _, err := c.Load("svc"); ended <- err }) {
		t.Errorf("a pipe that is silent was read: %v", <-ended)
	}
	if !c.Do(t.Context(), func() {
		if _, err := c.Load("other"); err != nil {
			t.Error(err)
		}
	}) {
		t.Error("the other name could not be read")
	}
	began := time.Now()
	c.Close()
	if took := time.Since(began); took < closeGrace {
		t.Errorf("closed after %v although a read hangs", took)
	}
	w, err := os.OpenFile(c.Path("svc"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a pipe was taken for a file of the cache")
	}
}
