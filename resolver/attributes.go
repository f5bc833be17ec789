// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/rollcall-grpc/rollcall"
)

// endpointOf returns what a channel sees of an instance at some addresses: the instance
// itself, and the attributes that gRPC's own policies read. Attributes that equal their
// defaults are left out; ring_hash's default is the address.
func endpointOf(inst *rollcall.Instance, addrs []grpcresolver.Address, weighing *attributes.Attributes, hashKey string) grpcresolver.Endpoint {
	ep := grpcresolver.Endpoint{Addresses: addrs, Attributes: weighing.WithValue(instanceKey{}, attribute{inst})}
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

type instanceKey struct{}

// String is for gRPC's trace, to which each state is written with its attributes: without
// it gRPC takes longer, to write the struct.
func (instanceKey) String() string { return "instance" }

// attribute compares by value: a balancer need not hear of a write that changed nothing.
type attribute struct{ *rollcall.Instance }

func (a attribute) Equal(o any) bool {
	b, ok := o.(attribute)
	return ok && a.Key == b.Key && a.SameValue(b.Instance)
}

func (a attribute) String() string { return a.Key }

// InstanceOf returns the instance, metadata and all, that an endpoint of this resolver
// stands for, for use in a balancer; nil for endpoints of other resolvers, and for the one
// without addresses that takes the place of the last. Of writes that changed neither
// address nor metadata it need not be the last.
func InstanceFromEndpoint(ep grpcresolver.Endpoint) *rollcall.Instance {
	a, _ := ep.Attributes.Value(instanceKey{}).(attribute)
	return a.Instance
}

// AttributesOf returns what the metadata of an endpoint of this resolver says: weight, place,
// version, status. Endpoints of other resolvers have no more than the weight that gRPC's own
// policies read.
func AttributesFromEndpoint(ep grpcresolver.Endpoint) rollcall.Attributes {
	if inst := InstanceFromEndpoint(ep); inst != nil {
		return inst.Attributes()
	}
	return rollcall.Attributes{Weight: max(weight.FromEndpoint(ep).Weight, 1)}
}
