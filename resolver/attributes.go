// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"strings"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/rollcall-grpc/rollcall"
)

// endpointOf returns what a channel sees of an instance: beside the instance itself the
// attributes that gRPC's own policies read. Where they are as without, they are left out.
func endpointOf(inst *rollcall.Instance) grpcresolver.Endpoint {
	ep := grpcresolver.Endpoint{
		Addresses:  []grpcresolver.Address{{Addr: inst.Addr}},
		Attributes: attributes.New(instanceKey{}, attribute{inst}),
	}
	a := inst.Attributes()
	if a.Weight != 1 {
		ep = weight.Set(ep, weight.EndpointInfo{Weight: a.Weight})
	}
	hashKey := a.HashKey
	if hashKey == "" {
		hashKey = inst.Key[strings.LastIndexByte(inst.Key, '/')+1:]
	}
	if hashKey != inst.Addr {
		ep = ringhash.SetHashKey(ep, hashKey)
	}
	return ep
}

type instanceKey struct{}

// attribute compares by value: a balancer need not hear of a write that changed nothing.
type attribute struct{ *rollcall.Instance }

func (a attribute) Equal(o any) bool {
	b, ok := o.(attribute)
	return ok && a.Key == b.Key && a.SameValue(b.Instance)
}

// InstanceOf returns the instance, metadata and all, that an endpoint of this resolver
// stands for, for use in a balancer; nil for endpoints of other resolvers. Of writes that
// changed neither address nor metadata it need not be the last.
func InstanceOf(ep grpcresolver.Endpoint) *rollcall.Instance {
	a, _ := ep.Attributes.Value(instanceKey{}).(attribute)
	return a.Instance
}

// AttributesOf returns what the metadata of an endpoint of this resolver says: weight, place,
// version, status. Endpoints of other resolvers have no more than the weight that gRPC's own
// policies read.
func AttributesOf(ep grpcresolver.Endpoint) rollcall.Attributes {
	if inst := InstanceOf(ep); inst != nil {
		return inst.Attributes()
	}
	return rollcall.Attributes{Weight: max(weight.FromEndpoint(ep).Weight, 1)}
}
