// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package main

import "os"

// fromTerminal reports whether the command has already received a signal: consoles send signals to
// every process.
func fromTerminal(os.Signal) bool { return true }

// stopEcho leaves it to the read of a password.
func stopEcho(int) error { return nil }
