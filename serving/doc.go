// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package serving ties a gRPC server to its place in etcd: the server is listed while
// its health service says SERVING and taken out before it stops.
//
// # Concurrency
//
// Run blocks; what it starts has ended when it returns.
package serving
