// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package random

import (
	"os"
	"syscall"
)

// hangDisk has what reads the cache from now on wait, as a disk does that hangs.
func (w *realWorld) hangDisk() {
	for s := range services {
		file := w.cacheFile(s)
		_ = os.Remove(file)
		_ = syscall.Mkfifo(file, 0o600)
	}
}

// thawDisk lets go of what hangs.
func (w *realWorld) thawDisk() {
	for s := range services {
		if info, err := os.Stat(w.cacheFile(s)); err != nil || info.Mode().IsRegular() {
			continue
		}
		if file, err := os.OpenFile(w.cacheFile(s), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			file.Close()
		}
		_ = os.Remove(w.cacheFile(s))
	}
}
