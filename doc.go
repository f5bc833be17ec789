// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollcall is gRPC naming and discovery on etcd. Servers register under the name of
// a service, with a lease; clients follow the service by its name.
//
// An endpoint of a service is a key "<service>/<id>" whose value is JSON,
// {"Op":0,"Addr":"host:port","Metadata":...}, as written by etcd's naming packages. This
// package has the codec (Encode, Decode), the immutable Snapshot of a service, the Directory,
// which follows services by shared watches, and the Registrar, which keeps endpoints
// registered. Package resolver gives snapshots to gRPC channels, package endpoints is a
// drop-in for etcd's endpoints.Manager, and package serving registers a gRPC server.
//
// # What a subscriber may observe
//
// A snapshot equals the decoding of the keys under a prefix at one revision. An invalid value
// is no instance, for every client alike. Revisions never go backwards within an epoch of the
// store, which ends when etcd loses its data or is restored from a backup. Snapshots may be
// skipped, but never the latest. An empty snapshot is valid. While etcd is unreachable the
// last snapshot stays, marked stale with the time and the cause. A watch that ends is opened
// again; if events were lost, the keys are listed and the difference is applied.
//
// # Concurrency
//
// From the first subscription to the last, a Directory runs one goroutine for each key range
// that it follows, and two for the connection; Close joins them without waiting for etcd. A
// Registrar runs one, and up to 32 for writes. Snapshots and Instances are immutable. A
// Subscription may be used by one goroutine at a time, everything else by many.
package rollcall
