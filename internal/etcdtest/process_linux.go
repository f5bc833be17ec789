// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import "syscall"

// diesWithUs has the kernel kill the child when the thread that started it ends, which
// is why that thread waits for the child (see process.run).
func diesWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
