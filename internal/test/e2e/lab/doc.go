// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab is what the end-to-end tests share: checks that run on Rollcall and on etcd's
// own naming package alike, followers that record what a service looked like, servers to
// call, and the notes that the table of faults is made of.
package lab
