// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package etcdconn monitors a client's connection to etcd: is it up, does the watch stream
// live, and is it still the same epoch of the store.
//
// A Monitor is told what responses say and what went wrong, and publishes a Status that
// others act on. While the connection is down only the Monitor asks etcd whether it is back.
//
// # Epochs
//
// An epoch is a history of the store: it ends when etcd loses its data or is restored from a
// backup. Revisions of different epochs cannot be compared. A new epoch shows by a
// linearizable response whose revision, or for a while whose raft term, is below the
// revision floor: what some member had reached before the request was sent.
//
// # Concurrency
//
// What Start begins is one goroutine, with one more that follows the state of the connection. All other
// methods may be called from any goroutine; none of them waits for etcd but Recheck.
package etcdconn
