// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolver resolves gRPC targets such as "etcd:///my-service" from etcd, as a
// drop-in for go.etcd.io/etcd/client/v3/naming/resolver: changing the import path is
// the migration.
//
// A target names a service; its endpoints are the keys under "<service>/". The
// authority and one trailing "/" are ignored; percent-escapes are decoded. Channels of
// one etcd client share one watch a service. A channel sees, in this order: the
// instances whose address the policy takes, without those that are draining (unless
// all are), one an address; the first eight in an order of the channel's own.
//
// Build does no I/O. While etcd has not answered, calls fail with UNAVAILABLE and
// etcd's own error after 1 s; a service without endpoints fails them naming service,
// prefix and revision; both heal by themselves. Once endpoints are known they are
// kept while etcd cannot be had.
//
// # Concurrency
//
// A channel is told of one thing at a time, by a goroutine that ends in Close, and one that
// is slow delays no other. What channels of one builder see of a service is worked out once
// for all of them. Where more than a few share a service, idle ones hold no goroutine.
package resolver
