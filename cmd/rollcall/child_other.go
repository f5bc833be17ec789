// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package main

import (
	"os"
	"os/exec"
)

// passedOn are the signals that a command gets at once.
var passedOn []os.Signal

// prepareChild does nothing: only Unix has process groups.
func prepareChild(*exec.Cmd) {}
