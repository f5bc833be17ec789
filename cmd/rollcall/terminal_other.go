// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package main

import "os"

// fromTerminal says whether the command has had a signal already: consoles send
// theirs to every process.
func fromTerminal(os.Signal) bool { return true }
