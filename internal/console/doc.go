// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package console is the page: what etcd holds of services, as HTML that follows it. A page is
// rendered on the server, works without a script, and is kept up to date by server-sent events
// with the pieces and rows that have changed, which htmx puts in their place.
//
// # Concurrency
//
// What several browsers have open, such as one service, is one view: one goroutine renders it, at
// most a few times a second, and all streams send the same bytes. A view ends a while after its
// last reader has left. Close joins all views, and ends all streams.
package console
