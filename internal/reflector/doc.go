// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package reflector keeps copies of ranges of etcd's keys right, whatever happens to etcd.
// It knows keys, values and revisions, and nothing of what they mean: that is its Store's to
// know, as with client-go's Reflector.
//
// A Reflector lists its range, then watches it from the next revision on; whatever ends the
// watch, it is opened again. It lists again only where the watch cannot go on from where it
// was: after compaction, in a new epoch of the store, after a refusal, and where a consistency
// check found a difference.
//
//	            list               watch opened
//	LISTING ------------> OPENING -------------> WATCHING --+ events: Apply, Publish
//	   ^                     ^                      |    ^--+
//	   | compacted, new      | stream replaced,     |
//	   | epoch, difference,  | watch ended          | watch or list failed
//	   | refused             +---- BACKING OFF <----+
//	   +---------------------------- |  ^
//	                                 v  | etcd is back
//	                               WAITING (an outage: only the connection monitor asks etcd)
//
// While it is not WATCHING the store is told since when and why it is stale.
//
// # Concurrency
//
// Each Reflector has one goroutine between Start and the stop that it returns, and one more while a
// check is made. A check calls the Store's NewList and Size,
// and the List's Add and Differences, beside whatever else is called; all other methods are
// called from one goroutine at a time. The Group's monitor runs while there is a Reflector.
package reflector
