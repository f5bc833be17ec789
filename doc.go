// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollcall is gRPC naming and discovery on etcd: services answer the roll by
// holding a lease, clients follow them by name.
//
// An endpoint of a service is a key "<service>/<id>" whose value is JSON,
// {"Op":0,"Addr":"host:port","Metadata":...}, as etcd's own naming packages and
// etcdctl write it. This package holds what everything else stands on: the codec
// (Encode, Decode), the immutable Snapshot of a service and its Diff, the Directory
// that keeps snapshots by shared watches, and the Registrar that keeps endpoints
// registered. Package resolver gives the snapshots to gRPC channels, package endpoints
// to users of etcd's endpoints.Manager, package serving ties a gRPC server to a
// registration.
//
// # What a consumer may observe
//
// A snapshot equals the decoding of what etcd held under the prefix at one revision;
// a value that cannot be read is no endpoint, for every reader alike. Within one
// history of the store revisions never go backwards. Snapshots may be skipped, the
// last one never is; an empty one is an answer. While etcd cannot be had the last
// snapshot stays, marked stale with since-when and why. Whatever ends a watch, it is
// opened again, and where events were lost the service is listed and the difference
// applied.
//
// # Concurrency
//
// A Directory runs one goroutine a watched prefix and one for the way to etcd, from
// the first subscription to the last; Close joins them without waiting for etcd. A
// Registrar runs one. Snapshots and Instances are immutable and may be shared freely.
// Subscriptions are read by one goroutine each; everything else is safe for all.
package rollcall
