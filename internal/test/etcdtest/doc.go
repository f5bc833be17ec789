// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package etcdtest runs real etcd in tests: members, each in its own process, that can be stopped,
// killed, paused, wiped, filled up and partitioned, optionally with TLS and users; a grpc-proxy;
// and links in front of them that can be cut, frozen and slowed down. The binaries are built once,
// from the versions that the modules in tools pin. The package does not import embedded etcd,
// which would end up in the go.sum of the library's users.
//
// # Concurrency
//
// A Link and the clients may be used by several goroutines, a Cluster and its Members by one
// at a time. All goroutines and processes end in the test's Cleanup.
package etcdtest
