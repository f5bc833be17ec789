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

// endpointOf returns what a channel sees of an instance at some addresses: the instance
// itself, and the attributes that gRPC's own policies read. Attributes that equal their
// defaults are left out; ring_hash's default is the address.
func endpointOf(inst *rollcall.Instance, addrs []grpcresolver.Address, weighing *attributes.Attributes, hashKey string) grpcresolver.Endpoint {
	ep := endpointattr.Set(grpcresolver.Endpoint{Addresses: addrs, Attributes: weighing}, inst)
	if hashKey != inst.Addr {
		ep = ringhash.SetHashKey(ep, hashKey)
	}
	return ep
}

// traits remembers what gRPC's own policies read from some metadata: most endpoints of a
// service have the same few. nil remembers nothing.
type traits map[string]trait

type trait struct {
	weighing *attributes.Attributes
	hashKey  string
}

func (t traits) of(inst *rollcall.Instance) trait {
	is, ok := t[string(inst.Metadata)]
	if !ok {
		a := inst.Attributes()
		is = trait{weighing(a.Weight), a.HashKey}
		if t != nil && len(t) < 64 {
			t[string(inst.Metadata)] = is
		}
	}
	return is
}

// usual are the attributes of small weights, which many endpoints share.
var usual = func() (all [101]*attributes.Attributes) {
	for w := range all {
		all[w] = weightAttribute(uint32(w))
	}
	return all
}()

func weighing(w uint32) *attributes.Attributes {
	if w < uint32(len(usual)) {
		return usual[w]
	}
	return weightAttribute(w)
}

// weightAttribute is nil for 1, which is the default.
func weightAttribute(w uint32) *attributes.Attributes {
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
