// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent keeps the endpoints of a file registered in etcd, each for as long as its checks
// pass: what "rollcall agent" runs. The agent follows the file; its status is on a unix socket, and
// systemd has it.
//
// # Concurrency
//
// Run's goroutine owns the endpoints and applies the file. Each endpoint has a goroutine that
// checks it, and looks at what the others have found under the fleet's lock. Status may be called
// at any time. Run joins everything that it has started.
package agent
