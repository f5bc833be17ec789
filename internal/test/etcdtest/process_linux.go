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

// diesWithUs has the kernel kill the child when the thread that started it ends, which
// is why that thread waits for the child (see process.run).
func diesWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// isPaused tells whether every thread has stopped. On a busy machine that is a while after
// the signal has been sent, and until then the process may answer.
func isPaused(p *os.Process) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid)) // errs on a bad pattern only
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		// The state follows the name, which is in parentheses and may hold some.
		if i := bytes.LastIndex(b, []byte(") ")); err == nil && i >= 0 && !bytes.HasPrefix(b[i+2:], []byte("T")) {
			return false
		}
	}
	return true
}
