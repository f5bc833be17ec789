// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package healthcheck checks servers that do not register themselves, and keeps their endpoints in
// etcd by what the checks find.
//
// A [Check] asks once. An [Endpoint] repeats its checks: it registers the endpoint once they pass,
// drains it while they fail, with the lease kept, and lets it return.
//
// # Concurrency
//
// A Check may be run concurrently. Endpoint.Run blocks, and what it starts has ended when it
// returns; the other methods may be called from any goroutine.
package healthcheck
