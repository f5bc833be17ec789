// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

// The balancing policies that a service config may name, beside gRPC's own two.
import (
	_ "google.golang.org/grpc/balancer/leastrequest"
	_ "google.golang.org/grpc/balancer/randomsubsetting"
	_ "google.golang.org/grpc/balancer/ringhash"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	_ "google.golang.org/grpc/balancer/weightedtarget"
	_ "google.golang.org/grpc/xds" // outlier detection

	_ "github.com/rollcall-grpc/rollcall/balancer/weighted"
	_ "github.com/rollcall-grpc/rollcall/balancer/zone"
)
