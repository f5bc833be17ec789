// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"encoding/json"
	"fmt"
	"slices"

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

// defaultSpillBelow is that of rollcall_zone for zones.
const defaultSpillBelow = 0.9

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
func inLocalities(p proto.Message) proto.Message {
	return &localityv3.WrrLocality{EndpointPickingPolicy: policyList(p)}
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
		MinRingSize, MaxRingSize *uint64
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
		p = inLocalities(&leastv3.LeastRequest{ChoiceCount: uint32Value(raw.ChoiceCount)})
	case "weighted_round_robin":
		p = inLocalities(&weightedv3.ClientSideWeightedRoundRobin{})
	case "ring_hash_experimental":
		p = &ringv3.RingHash{HashFunction: ringv3.RingHash_XX_HASH, MinimumRingSize: uint64Value(raw.MinRingSize), MaximumRingSize: uint64Value(raw.MaxRingSize)}
		if c.oneClass = len(c.policies) == 0; raw.RequestHashHeader != "" {
			c.hash = &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
				Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: raw.RequestHashHeader}}}
		}
	case "rollcall_zone": // by priorities, for clients that say where they are
		if below := raw.SpillBelow.Zone; below != nil && *below > 0 && *below <= 1 {
			c.spillBelow = *below
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

func uint32Value(v *uint32) *wrapperspb.UInt32Value {
	if v == nil {
		return nil
	}
	return wrapperspb.UInt32(*v)
}

func uint64Value(v *uint64) *wrapperspb.UInt64Value {
	if v == nil {
		return nil
	}
	return wrapperspb.UInt64(*v)
}
