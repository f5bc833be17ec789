// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package etcdtest

import (
	"os"
	"syscall"
)

// diesWithUs does nothing: a test binary that is killed leaves its members running.
func diesWithUs() *syscall.SysProcAttr { return nil }

// isPaused assumes that a process stops soon after the signal.
func isPaused(*os.Process) bool { return true }
