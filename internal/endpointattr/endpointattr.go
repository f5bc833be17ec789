// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package endpointattr carries an instance on a gRPC endpoint, from the resolver, which
// sets it, to the balancers, which read it.
package endpointattr

import (
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

type key struct{}

// String names the attribute in gRPC's trace, which formats the attributes of each state;
// without it fmt formats the struct, which takes longer.
func (key) String() string { return "instance" }

// attribute compares by key and value, so that a write that changed nothing goes unnoticed.
type attribute struct{ *rollcall.Instance }

func (a attribute) Equal(o any) bool {
	b, ok := o.(attribute)
	return ok && a.Key == b.Key && a.SameValue(b.Instance)
}

func (a attribute) String() string { return a.Key }

// Set returns the endpoint with an instance that Instance and Attributes read.
func Set(ep grpcresolver.Endpoint, inst *rollcall.Instance) grpcresolver.Endpoint {
	ep.Attributes = ep.Attributes.WithValue(key{}, attribute{inst})
	return ep
}

// Instance returns the instance of an endpoint, nil where Set was not called.
func Instance(ep grpcresolver.Endpoint) *rollcall.Instance {
	a, _ := ep.Attributes.Value(key{}).(attribute)
	return a.Instance
}

// Attributes returns what the metadata of an endpoint's instance says. Without an instance
// it has only the weight that gRPC's own policies read.
func Attributes(ep grpcresolver.Endpoint) rollcall.Attributes {
	if inst := Instance(ep); inst != nil {
		return inst.Attributes()
	}
	return rollcall.Attributes{Weight: max(weight.FromEndpoint(ep).Weight, 1)}
}
