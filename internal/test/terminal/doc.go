// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package terminal runs commands in a pseudo-terminal and reads their screen as a person would.
//
// # Concurrency
//
// A Terminal's methods are for the goroutine of the test. One goroutine of its own draws what the command
// writes, another types what the terminal answers; both have ended when End returns.
package terminal
