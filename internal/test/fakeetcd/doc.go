// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package fakeetcd is an etcd in memory, for tests inside testing/synctest
// bubbles. A [Store] holds the data: revisions, history, leases. A [Conn] is one
// client's way to it, with faults of its own.
//
// Only the server is faked. [Conn.Client] is a clientv3.Client whose KV, Watcher
// and Lease are clientv3's own, on in-memory versions of the generated gRPC
// clients: how watches share streams and resume, how a keepalive gives up, and
// which error comes out as what are therefore etcd's doing, not this package's.
// What is missing beneath them is gRPC's retry interceptor: a call that fails
// with Unavailable fails, where a client on a network would try some again.
//
// Where it differs from etcd: transactions within transactions are refused,
// leases expire to the instant, a keepalive's first message goes out half a
// virtual second late (clientv3 compares clocks that stand still), watch
// responses are never fragmented, no progress notice comes unasked, there is no
// authentication, and stored revisions are compacted at once.
//
// # Concurrency
//
// All methods are safe for concurrent use. A Store and its Conns belong to the
// bubble that made them. A Store has no goroutine but the timers of its leases;
// a Conn has one for each open stream, and [Conn.Close] ends them, though it may
// return a moment before the last one has returned. Hooks are called with no
// lock held, so they may use the Store and the Conn.
package fakeetcd
