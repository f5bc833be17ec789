// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package random runs Rollcall through random histories: writes, expiring leases and faults, with
// many subscriptions, watch channels, gRPC resolvers and registrations at once. When the faults
// are over, all of them must show the content of etcd. At no time may one go backwards, show
// what was never in etcd, or drop endpoints because etcd is unreachable.
//
// A history is a readable list of steps, one a line ("put s0/a", "cut 1", "wait 5s"). It runs on
// the fake etcd in virtual time, where hours take seconds, or on real etcd processes:
//
//	go test ./internal/test/random -run TestRandom -hours 1000
//	go test ./internal/test/random -run TestSoak -soak 20m -v
//
// Both print their seed; -seed runs the same histories again. A history that fails in virtual
// time is shortened as far as possible and saved in testdata/histories. TestHistories runs every
// file there.
package random
