// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"hash/maphash"
	"slices"

	"google.golang.org/grpc/attributes"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

// choose returns the instances that a channel may call: those whose address the policy
// takes, without the draining ones unless all are, one an address (the newest by
// CreateRevision, then the least key), sorted by key; behind them those that are held,
// where nobody else has their address.
func choose(snap *rollcall.Snapshot, policy rollcall.AddressPolicy) (chosen []*rollcall.Instance, refused []rollcall.Refused) {
	taken, refused := snap.Screen(policy)
	chosen = slices.DeleteFunc(slices.Clone(taken), func(i *rollcall.Instance) bool { return i.Draining() })
	if held := snap.Held(); len(held) > 0 {
		present := make(map[string]bool, len(taken))
		for _, inst := range taken {
			present[inst.Addr] = true
		}
		for _, inst := range held {
			if !present[inst.Addr] && policy.Check(inst.Addr) == nil {
				chosen = append(chosen, inst)
			}
		}
	}
	if len(chosen) == 0 {
		chosen = taken
	}
	best := make(map[string]*rollcall.Instance, len(chosen))
	for _, inst := range chosen {
		if other := best[inst.Addr]; other == nil || other.CreateRevision < inst.CreateRevision {
			best[inst.Addr] = inst
		}
	}
	return slices.DeleteFunc(chosen, func(i *rollcall.Instance) bool { return best[i.Addr] != i }), refused
}

// sameValues says whether a channel could see no difference.
func sameValues(a, b []*rollcall.Instance) bool {
	return slices.EqualFunc(a, b, func(a, b *rollcall.Instance) bool {
		return a == b || a.Key == b.Key && a.SameValue(b)
	})
}

// order is a channel's own order of endpoints: the same for as long as it lives, so
// that pick_first stays where it is, and another one for every channel, so that
// pick_first does not send them all to one server.
type order struct{ seed maphash.Seed }

func newOrder() order { return order{seed: maphash.MakeSeed()} }

func (o order) sorted(instances []*rollcall.Instance) []*rollcall.Instance {
	type ranked struct {
		rank uint64
		inst *rollcall.Instance
	}
	all := make([]ranked, len(instances))
	for i, inst := range instances {
		all[i] = ranked{maphash.String(o.seed, inst.Key), inst}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		switch {
		case a.rank < b.rank:
			return -1
		case a.rank > b.rank:
			return 1
		}
		return 0
	})
	sorted := make([]*rollcall.Instance, len(all))
	for i, r := range all {
		sorted[i] = r.inst
	}
	return sorted
}

// endpoints renders instances for gRPC.
func endpoints(instances []*rollcall.Instance) []grpcresolver.Endpoint {
	eps := make([]grpcresolver.Endpoint, len(instances))
	for i, inst := range instances {
		eps[i] = grpcresolver.Endpoint{
			Addresses:  []grpcresolver.Address{{Addr: inst.Addr}},
			Attributes: attributes.New(instanceKey{}, attribute{inst}),
		}
	}
	return eps
}

type instanceKey struct{}

// attribute compares by value: a balancer need not hear of a write that changed nothing.
type attribute struct{ *rollcall.Instance }

func (a attribute) Equal(o any) bool {
	b, ok := o.(attribute)
	return ok && a.Key == b.Key && a.SameValue(b.Instance)
}

// InstanceOf returns the instance, metadata and all, that an endpoint of this resolver
// stands for, for use in a balancer; nil for endpoints of other resolvers.
func InstanceOf(ep grpcresolver.Endpoint) *rollcall.Instance {
	a, _ := ep.Attributes.Value(instanceKey{}).(attribute)
	return a.Instance
}
