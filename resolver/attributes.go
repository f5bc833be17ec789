// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"sync/atomic"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/endpointattr"
)

// newEndpoint returns what a channel sees of an instance at some addresses: the instance,
// and the attributes that gRPC's own policies read. Attributes that equal their defaults are
// left out; ring_hash's default is the address.
func newEndpoint(inst *rollcall.Instance, addrs []grpcresolver.Address, weight uint32, hashKey string) grpcresolver.Endpoint {
	ep := endpointattr.Set(grpcresolver.Endpoint{Addresses: addrs, Attributes: weightAttribute(weight)}, inst)
	if hashKey != inst.Addr {
		ep = ringhash.SetHashKey(ep, hashKey)
	}
	return ep
}

// hashKeyOf returns where ring_hash puts an endpoint.
func hashKeyOf(ep grpcresolver.Endpoint) string {
	if hashKey := ringhash.HashKey(ep); hashKey != "" {
		return hashKey
	}
	return ep.Addresses[0].Addr
}

// weights are the attributes of weights, made when first needed: endpoints share them, whatever
// else their metadata says. See BenchmarkStateDistinct.
var weights [1001]atomic.Pointer[attributes.Attributes]

// weightAttribute returns what gRPC's own policies read of an instance's weight, nil for 1, the default.
func weightAttribute(w uint32) *attributes.Attributes {
	switch {
	case w == 1:
		return nil
	case w >= uint32(len(weights)):
		return newWeightAttribute(w)
	}
	is := weights[w].Load()
	if is == nil {
		is = newWeightAttribute(w)
		weights[w].Store(is)
	}
	return is
}

func newWeightAttribute(w uint32) *attributes.Attributes {
	return weight.Set(grpcresolver.Endpoint{}, weight.EndpointInfo{Weight: w}).Attributes
}

// InstanceFromEndpoint returns the instance, metadata and all, that an endpoint of this
// resolver stands for, for use in a balancer; nil for endpoints of other resolvers, and for
// the endpoint without addresses that a service without endpoints has. Of writes that
// changed neither address nor metadata it need not be the last.
//
// # Experimental
//
// It rests on gRPC's resolver.Endpoint, which is experimental.
func InstanceFromEndpoint(ep grpcresolver.Endpoint) *rollcall.Instance {
	return endpointattr.Instance(ep)
}

// AttributesFromEndpoint returns what the metadata of an endpoint of this resolver says:
// weight, locality, version, status. Endpoints of other resolvers have no more than the
// weight that gRPC's own policies read.
//
// # Experimental
//
// It rests on gRPC's resolver.Endpoint, which is experimental.
func AttributesFromEndpoint(ep grpcresolver.Endpoint) rollcall.Attributes {
	return endpointattr.Attributes(ep)
}
