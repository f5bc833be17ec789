// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package endpoints adds, deletes, lists and watches the endpoints of a service in etcd. It is
// a drop-in for go.etcd.io/etcd/client/v3/naming/endpoints, with the same names, types and
// meanings: to migrate, change the import path. docs/migrate.md lists the intended differences.
//
// # Concurrency
//
// A Manager may be used by many goroutines. Each WatchChannel has a goroutine, which ends with
// the context of the watch or with the client.
package endpoints
