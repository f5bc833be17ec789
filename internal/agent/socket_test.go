// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"os"
	"path/filepath"
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
