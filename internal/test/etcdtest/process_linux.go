// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// diesWithUs makes the kernel kill the child when the thread that started it ends; that thread
// therefore waits for the child (see process.run).
func diesWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// isPaused reports whether every thread has stopped. On a busy machine that takes a while
// after the signal, and until then the process may answer.
func isPaused(p *os.Process) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid)) // errs on a bad pattern only
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		// The state follows the name, which is in parentheses and may contain some.
		if i := bytes.LastIndex(b, []byte(") ")); err == nil && i >= 0 && !bytes.HasPrefix(b[i+2:], []byte("T")) {
			return false
		}
	}
	return true
}
