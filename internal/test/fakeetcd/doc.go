// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package fakeetcd is an etcd in memory, for tests in testing/synctest bubbles. A [Store] has the
// data: keys with their past revisions, and leases. A [Conn] is the connection of one client,
// with its own faults.
//
// Only the server is fake. [Conn.Client] is a clientv3.Client whose KV, Watcher and Lease are
// those of clientv3, on in-memory versions of the generated gRPC clients. So it is clientv3 that
// gives up keepalives, converts errors, and shares and resumes the watches of its Watcher. The
// Watcher has a method WatchClient too, and the KV KVClient: the generated clients beneath. gRPC's retry
// interceptor is missing: a call that fails with Unavailable is never retried.
//
// It differs from etcd as follows: nested transactions fail, leases expire exactly in time, the
// first message of a keepalive is sent half a virtual second late (clientv3 compares clocks that
// stand still), watch responses are never fragmented, progress is only notified on request, there
// is no authentication, and compaction is immediate.
//
// # Concurrency
//
// All methods are safe for concurrent use. A Store and its Conns belong to the bubble that made
// them. A Store has no goroutine except the timers of its leases. A Conn has one for each open
// stream; [Conn.Close] ends them, but may return before the last one has returned. Hooks are
// called without locks, so that they may use the Store and the Conn.
package fakeetcd
