// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	typev3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	weightedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	pickfirstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	defaultSpillBelow = 0.9  // that of rollcall_zone for zones
	leastSpillBelow   = 0.01 // a factor of 10,000 %

	defaultRingSize  = 1024 // the least
	greatestRingSize = 8 << 20

	headerChars = "abcdefghijklmnopqrstuvwxyz0123456789-_." // of HTTP/2 headers, as gRPC has them
)

// cluster returns the Cluster of a service. Clients that do not read load_balancing_policy, or
// know none of its policies, balance by round_robin.
func cluster(n resourceName, config *serviceConfig) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                 n.text,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{
			EdsConfig:   &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}},
			ServiceName: n.as(assignments),
		},
		LbPolicy: clusterv3.Cluster_ROUND_ROBIN,
		// Envoy speaks HTTP/1.1 to a cluster that does not say otherwise; gRPC reads none of this.
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": toAny(&upstreamv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
					},
				},
			}),
		},
	}
	if len(config.policies) > 0 {
		c.LoadBalancingPolicy = policyList(config.policies...)
	}
	return c
}

func policyList(policies ...proto.Message) *clusterv3.LoadBalancingPolicy {
	list := new(clusterv3.LoadBalancingPolicy)
	for _, p := range policies {
		list.Policies = append(list.Policies, &clusterv3.LoadBalancingPolicy_Policy{
			TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: string(p.ProtoReflect().Descriptor().Name()), TypedConfig: toAny(p)},
		})
	}
	return list
}

// inLocalities balances by a policy within each locality, and between them by their weights.
// Clients that do not know the policy balance by round_robin: Node would reject the Cluster.
func inLocalities(p proto.Message) proto.Message {
	inner := []proto.Message{p}
	if roundRobin := (&roundrobinv3.RoundRobin{}); !proto.Equal(p, roundRobin) {
		inner = append(inner, roundRobin)
	}
	return &localityv3.WrrLocality{EndpointPickingPolicy: policyList(inner...)}
}

// mapPolicies maps a "loadBalancingConfig", whose first policy that a client knows is used.
func (c *serviceConfig) mapPolicies(list []map[string]json.RawMessage) {
	for i, entry := range list {
		where := fmt.Sprintf("loadBalancingConfig[%d]", i)
		if len(entry) != 1 {
			c.omit(where, "it names %d policies; it must name one", len(entry))
			continue
		}
		for name, config := range entry {
			c.mapPolicy(where+"."+name, name, config)
		}
	}
}

// prefer adds a policy for clients that know none of those before it.
func (c *serviceConfig) prefer(p proto.Message) {
	if !slices.ContainsFunc(c.policies, func(o proto.Message) bool { return proto.Equal(o, p) }) {
		c.policies = append(c.policies, p)
	}
}

func (c *serviceConfig) mapPolicy(where, name string, config json.RawMessage) {
	var raw struct {
		ShuffleAddressList       bool
		ChoiceCount              *uint32
		MinRingSize, MaxRingSize uint64
		RequestHashHeader        string
		SpillBelow               struct{ Zone *float64 }
		ChildPolicy              []map[string]json.RawMessage
	}
	if err := json.Unmarshal(config, &raw); err != nil {
		c.omit(where, "it is invalid: %v", err)
		return
	}
	var p proto.Message
	switch name {
	case "round_robin":
		p = inLocalities(&roundrobinv3.RoundRobin{})
	case "rollcall_weighted":
		// Of Go clients that import it: gRFC A52. Node rejects one without a value.
		c.prefer(&typev3.TypedStruct{TypeUrl: typePrefix + name, Value: &structpb.Struct{}})
		p = inLocalities(&roundrobinv3.RoundRobin{})
	case "pick_first":
		p = &pickfirstv3.PickFirst{ShuffleAddressList: raw.ShuffleAddressList}
	case "least_request_experimental":
		least := new(leastv3.LeastRequest)
		switch n := raw.ChoiceCount; {
		case n != nil && *n < 2:
			c.omit(where+".choiceCount", "it is %d; it must be at least 2", *n)
		case n != nil:
			least.ChoiceCount = wrapperspb.UInt32(*n)
		}
		p = inLocalities(least)
	case "weighted_round_robin":
		p = inLocalities(&weightedv3.ClientSideWeightedRoundRobin{})
	case "ring_hash_experimental":
		if slices.ContainsFunc(c.policies, func(p proto.Message) bool { _, is := p.(*ringv3.RingHash); return is }) {
			c.omit(where, "the one before it is used")
			return
		}
		c.oneClass = len(c.policies) == 0
		c.mapHash(where+".requestHashHeader", raw.RequestHashHeader)
		p = c.mapRing(where, raw.MinRingSize, raw.MaxRingSize)
	case "rollcall_zone": // by priorities, for clients that say where they are
		if below := raw.SpillBelow.Zone; below != nil {
			c.mapSpill(where+".spillBelow.zone", *below)
		}
		if raw.ChildPolicy != nil {
			c.mapPolicies(raw.ChildPolicy)
			return
		}
		p = inLocalities(&roundrobinv3.RoundRobin{})
	default:
		c.omit(where, "xDS has no counterpart")
		return
	}
	c.prefer(p)
}

// mapRing maps the sizes of a ring, 0 being the default as in gRPC, to ones that clients accept.
func (c *serviceConfig) mapRing(where string, least, greatest uint64) proto.Message {
	size := func(what string, n, standard uint64) uint64 {
		if n > greatestRingSize {
			c.omit(where+what, "it is %d; %d is the greatest that clients accept", n, greatestRingSize)
		}
		return min(cmp.Or(n, standard), greatestRingSize)
	}
	low, high := size(".minRingSize", least, defaultRingSize), size(".maxRingSize", greatest, greatestRingSize)
	if low > high {
		c.omit(where+".minRingSize", "it is %d, more than maxRingSize, which is used: %d", low, high)
	}
	return &ringv3.RingHash{
		HashFunction:    ringv3.RingHash_XX_HASH,
		MinimumRingSize: wrapperspb.UInt64(min(low, high)),
		MaximumRingSize: wrapperspb.UInt64(high),
	}
}

// mapHash maps a header whose hash decides on the ring; without one calls go at random.
func (c *serviceConfig) mapHash(where, header string) {
	header = strings.ToLower(header)
	switch {
	case header == "":
		return
	case strings.Trim(header, headerChars) != "" || strings.HasSuffix(header, "-bin"):
		c.omit(where, "%q is not the name of a header of text", header)
		return
	}
	c.hash = &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
		Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: header}}}
}

// mapSpill takes in a spillBelow of which an overprovisioning factor can be made.
func (c *serviceConfig) mapSpill(where string, below float64) {
	switch {
	case below <= 0 || below > 1:
		c.omit(where, "it is %v; it must be above 0 and at most 1", below)
		return
	case below < leastSpillBelow:
		c.omit(where, "it is %v; %v is the least in xDS, and is used", below, leastSpillBelow)
	}
	c.spillBelow = max(below, leastSpillBelow)
}
