// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package main

import "os/exec"

// endWithThread does nothing: only Linux can signal a command when its parent is killed.
func endWithThread(*exec.Cmd) {}
