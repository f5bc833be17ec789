// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package random drives Rollcall through random histories: writes, leases that expire, and
// everything that goes wrong, under many subscriptions, watch channels, gRPC resolvers
// and registrations at once. When the faults are over all of them must come to show what
// etcd holds; and at no time may one go backwards, show what etcd never held, or drop what
// it knows because etcd is away.
//
// A history is a list of steps that a person can read, one a line ("put s0/a", "cut 1",
// "wait 5s"). It is played on the fake etcd in virtual time, where hours cost seconds, or
// on real etcd processes:
//
//	go test ./internal/test/random -run TestRandom -hours 1000
//	go test ./internal/test/random -run TestSoak -soak 20m -v
//
// Both print the seed that they began with; -seed plays the same histories again. One that
// fails in virtual time is made as short as it can be and kept in testdata/histories,
// where every file is played by TestHistories.
package random
