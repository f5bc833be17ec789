// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package etcdtest

import "syscall"

// diesWithUs has no counterpart here: a test binary that is killed leaves its members.
func diesWithUs() *syscall.SysProcAttr { return nil }
