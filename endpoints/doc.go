// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package endpoints adds, deletes, lists and watches the endpoints of a service in
// etcd, as a drop-in for go.etcd.io/etcd/client/v3/naming/endpoints: the names, types
// and meanings are that package's, so that changing the import path is the migration.
// docs/migrate.md lists what differs on purpose.
//
// # Concurrency
//
// A Manager may be used by many goroutines. A WatchChannel has one goroutine behind it,
// which ends with the context it was made with, or with the client.
package endpoints
