// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile locks a file for as long as it is open. The lock of a process ends with it. A link is
// refused: it may be somebody else's, to have a file of this user made.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrRunning
		}
		return nil, err
	}
	return file, nil
}

// isPrivate reports whether a directory is this user's alone.
func isPrivate(dir os.FileInfo) bool {
	return dir.Mode().Perm()&0o077 == 0 && int(dir.Sys().(*syscall.Stat_t).Uid) == os.Geteuid()
}
