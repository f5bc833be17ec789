// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
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
func newEndpoint(inst *rollcall.Instance, addrs []grpcresolver.Address, weight *attributes.Attributes, hashKey string) grpcresolver.Endpoint {
	ep := endpointattr.Set(grpcresolver.Endpoint{Addresses: addrs, Attributes: weight}, inst)
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

// endpointAttributes is what gRPC's own policies read from an instance's metadata.
type endpointAttributes struct {
	weight  *attributes.Attributes
	hashKey string // nothing where there is no "hash_key"
}

// attributeCache holds what was read from some metadata: most endpoints of a service have
// the same few. A nil one holds nothing. See BenchmarkState.
type attributeCache map[string]endpointAttributes

const maxCached = 64

func (c attributeCache) of(inst *rollcall.Instance) endpointAttributes {
	is, ok := c[string(inst.Metadata)]
	if !ok {
		a := inst.Attributes()
		is = endpointAttributes{weightAttribute(a.Weight), a.HashKey}
		if c != nil && len(c) < maxCached {
			c[string(inst.Metadata)] = is
		}
	}
	return is
}

// smallWeights are the attributes of small weights, which endpoints share even where their
// metadata differs: see BenchmarkStateDistinct.
var smallWeights = func() (all [101]*attributes.Attributes) {
	for w := range all {
		all[w] = newWeightAttribute(uint32(w))
	}
	return all
}()

func weightAttribute(w uint32) *attributes.Attributes {
	if w < uint32(len(smallWeights)) {
		return smallWeights[w]
	}
	return newWeightAttribute(w)
}

// newWeightAttribute returns nil for 1, the default.
func newWeightAttribute(w uint32) *attributes.Attributes {
	if w == 1 {
		return nil
	}
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
