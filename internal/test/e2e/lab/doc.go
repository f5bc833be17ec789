// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab is shared by the end-to-end tests. It has checks that run on both Rollcall and
// etcd's naming package, followers that record the snapshots of a service, servers to call,
// and the notes from which the table of faults is made.
package lab
