// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package etcdtest

import (
	"os"
	"syscall"
)

// diesWithUs has no counterpart here: a test binary that is killed leaves its members.
func diesWithUs() *syscall.SysProcAttr { return nil }

// isPaused cannot be told here; a process stops soon after the signal.
func isPaused(*os.Process) bool { return true }
