// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A link that somebody else may have made does not have the agent make a file elsewhere.
func TestSocketLockIsNoLink(t *testing.T) {
	path, elsewhere := filepath.Join(t.TempDir(), "s.lock"), filepath.Join(t.TempDir(), "made")
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	if lock, err := lockFile(path); err == nil {
		lock.Close()
		t.Error("the link was followed")
	}
	if _, err := os.Lstat(elsewhere); !os.IsNotExist(err) {
		t.Errorf("%v, want no file at the end of the link", err)
	}
}

// The socket is in a directory that nobody else may use: what is there is not trusted.
func TestSocketDirectoryIsPrivate(t *testing.T) {
	root, err := os.MkdirTemp("", "rc") // short enough
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	dir := func(name string, mode os.FileMode) string {
		path := filepath.Join(root, name)
		if err := errors.Join(os.Mkdir(path, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := "/"
	if os.Geteuid() == 0 {
		foreign = dir("foreign", 0o700)
		if err := os.Chown(foreign, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	for path, ok := range map[string]bool{
		filepath.Join(root, "new"): true, dir("own", 0o700): true, dir("read", 0o755): false, dir("tmp", 0o1777): false, foreign: false,
	} {
		s, err := openSocket(filepath.Join(path, "s"))
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "yours alone") {
			t.Errorf("%s: %v, want %v", path, err, ok)
		}
		if err == nil {
			s.serve(func() Status { return Status{} })
			s.close()
		}
	}
	if info, err := os.Stat(filepath.Join(root, "new")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v, want a directory of this user alone", info.Mode(), err)
	}
}
