// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package etcdtest runs real etcd in tests: members as processes of their own that can be
// stopped, killed, paused, wiped, filled up and parted from each other, with TLS and users
// where a test asks for them; a grpc-proxy; and links in front of them that can be cut,
// frozen and made slow. The binaries are built once from the versions that the modules
// below tools pin. Nothing of it imports embedded etcd, so that it stays out of the go.sum
// of the library's users.
//
// # Concurrency
//
// A Link and the clients may be used from several goroutines; a Cluster and its Members
// from one at a time. All goroutines and processes end in the test's Cleanup.
package etcdtest
