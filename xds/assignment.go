// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-grpc/rollcall"
)

// audience is who an assignment is for.
type audience struct {
	locality rollcall.Locality // empty parts do not matter
	subset   uint16            // see subsetOf
}

// group is the endpoints of one locality and weight class, which clients take for a locality:
// few of them weigh endpoints, all of them localities.
type group struct {
	locality rollcall.Locality // as clients are sent it, with the class
	members  []endpoint
	weight   uint64 // of the members that are not draining, or of all if all are
	distance int    // from the audience, of the nearest member
	serving  bool
}

// assignmentOf returns what an audience is sent of a service: why none of its endpoints can be
// called where all had to be left out.
func assignmentOf(name, service string, endpoints []endpoint, left []rollcall.Disallowed, to audience, config *serviceConfig, limit int) *endpointv3.ClusterLoadAssignment {
	if len(endpoints) == 0 && len(left) > 0 {
		return refusal(name, fmt.Sprintf("no endpoint of %q can be called; the first of %d, %q: %v", service, len(left), left[0].Instance.Key, left[0].Cause))
	}
	return assignment(name, endpoints, to, config, limit)
}

// assignment returns the ClusterLoadAssignment of a service's endpoints. Endpoints of the same
// locality share their priority: the nearer to the audience the sooner, from 0 without gaps. Of
// more endpoints than limit it has a subset, whose members stand for all: of each locality and
// weight class one endpoint, and its share of the others. Only where there are more of those than
// limit, or endpoints drain, does a subset have more members.
func assignment(name string, endpoints []endpoint, to audience, config *serviceConfig, limit int) *endpointv3.ClusterLoadAssignment {
	groups := groupsOf(endpoints, to.locality, config.oneClass)
	scale := scaleOf(endpoints)
	others := max(limit-len(groups), 0) // of a subset, beside one of each group
	a := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	var tiers []int // distances of groups that serve
	for _, g := range groups {
		if g.serving && !slices.Contains(tiers, g.distance) {
			tiers = append(tiers, g.distance)
		}
	}
	for _, g := range groups {
		priority := 0 // of the first tier that is not nearer, or else the last
		for priority < len(tiers)-1 && tiers[priority] < g.distance {
			priority++
		}
		part := g.members
		if n := len(endpoints); n > limit {
			part = subsetOf(part, 1+others*(len(part)-1)/max(n-len(groups), 1), to.subset)
		}
		a.Endpoints = append(a.Endpoints, &endpointv3.LocalityLbEndpoints{
			Locality:            localityProto(g.locality),
			LbEndpoints:         lbEndpoints(part, scale),
			LoadBalancingWeight: scaled(g.weight, scale),
			Priority:            uint32(priority),
		})
	}
	if len(tiers) > 1 {
		a.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: config.overprovisioning()}
	}
	return a
}

// refusal returns an assignment by which a client fails every call, and most say why. An empty
// one would say that the service has no endpoints, which only etcd can.
func refusal(name, reason string) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Policy: &endpointv3.ClusterLoadAssignment_Policy{
			DropOverloads: []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{
				Category:       validUTF8("rollcall: " + reason),
				DropPercentage: &typev3.FractionalPercent{Numerator: 100, Denominator: typev3.FractionalPercent_HUNDRED},
			}},
		},
	}
}

// groupsOf groups endpoints, which are sorted by address, and sorts the groups. Those that clients
// could not tell apart are one, such as that of a subzone "weight=2" and the class of that name.
func groupsOf(endpoints []endpoint, near rollcall.Locality, oneClass bool) []*group {
	type key struct {
		locality rollcall.Locality
		class    int
	}
	index := make(map[key]*group)
	sent := make(map[rollcall.Locality]*group)
	var groups []*group
	for _, ep := range endpoints {
		k := key{locality: ep.locality}
		if !oneClass {
			k.class = weightClass(ep.weight)
		}
		g := index[k]
		if g == nil {
			l, distance := sentLocality(k.locality, k.class), near.Distance(k.locality)
			if g = sent[l]; g == nil {
				g = &group{locality: l, distance: distance}
				sent[l] = g
				groups = append(groups, g)
			}
			index[k], g.distance = g, min(g.distance, distance)
		}
		if !ep.draining && !g.serving { // what was counted was draining
			g.serving, g.weight = true, 0
		}
		if ep.draining != g.serving {
			g.weight += uint64(ep.weight)
		}
		g.members = append(g.members, ep)
	}
	slices.SortFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.locality.Region, b.locality.Region), cmp.Compare(a.locality.Zone, b.locality.Zone),
			cmp.Compare(a.locality.Subzone, b.locality.Subzone))
	})
	return groups
}

// weightClassStep is the ratio of the weights that classes begin with: those of one class differ
// by less than 2 %, so that an endpoint gets its share within that. A class depends on the
// endpoint's own weight alone: no endpoint changes its class, and with it its connection, when
// another comes or goes.
const weightClassStep = 1.02

// weightClass returns 0 for a weight of 1, the default.
func weightClass(weight uint32) int {
	return int(math.Log(float64(weight)) / math.Log(weightClassStep))
}

// sentLocality returns a locality as clients can be sent it, with the weight class in its subzone,
// but for the default weight's.
func sentLocality(l rollcall.Locality, class int) rollcall.Locality {
	l = rollcall.Locality{Region: validUTF8(l.Region), Zone: validUTF8(l.Zone), Subzone: validUTF8(l.Subzone)}
	if class > 0 {
		if l.Subzone != "" {
			l.Subzone += ","
		}
		l.Subzone += fmt.Sprintf("weight=%.0f", math.Ceil(math.Pow(weightClassStep, float64(class))))
	}
	return l
}

// scaleOf returns what weights are divided by, for clients add them up in 32 bits, those of
// endpoints that drain among them. Each may be rounded up to 1.
func scaleOf(endpoints []endpoint) uint64 {
	var sum uint64
	for _, ep := range endpoints {
		sum += uint64(ep.weight)
	}
	return sum/(math.MaxUint32-uint64(len(endpoints))) + 1
}

func scaled(weight, scale uint64) *wrapperspb.UInt32Value {
	return wrapperspb.UInt32(uint32(max(weight/scale, 1))) // clients reject 0
}

func lbEndpoints(endpoints []endpoint, scale uint64) []*endpointv3.LbEndpoint {
	list := make([]*endpointv3.LbEndpoint, len(endpoints))
	for i, ep := range endpoints {
		if list[i] = ep.sent; ep.sent == nil || ep.draining || scale > 1 {
			list[i] = lbEndpoint(ep, scale)
		}
	}
	return list
}

func lbEndpoint(ep endpoint, scale uint64) *endpointv3.LbEndpoint {
	e := &endpointv3.Endpoint{Address: socketAddress(ep.addr.Addr().String(), uint32(ep.addr.Port()))}
	for _, addr := range ep.more {
		e.AdditionalAddresses = append(e.AdditionalAddresses, &endpointv3.Endpoint_AdditionalAddress{
			Address: socketAddress(addr.String(), uint32(ep.addr.Port()))})
	}
	lb := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: e}}
	if ep.draining {
		lb.HealthStatus = corev3.HealthStatus_DRAINING
	}
	if ep.weight != 1 {
		lb.LoadBalancingWeight = scaled(uint64(ep.weight), scale)
	}
	return lb
}
