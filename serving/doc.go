// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package serving ties a gRPC server to its registrations in etcd: the server is listed
// while its health service says SERVING and taken out before it stops.
//
// ListenAndServe and Run are all that most servers need. A Server is for those that need
// more while it runs: its registrations, or a readiness probe.
//
// # Concurrency
//
// Run and ListenAndServe block; what they start has ended when they return.
package serving
