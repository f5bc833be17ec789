// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"

	"github.com/rollcall-grpc/rollcall"
)

func configOf(text string) *serviceConfig {
	return mapServiceConfig(&rollcall.ServiceConfig{JSON: []byte(text)})
}

// policyNames renders a list of policies.
func policyNames(t *testing.T, list *clusterv3.LoadBalancingPolicy) string {
	t.Helper()
	var names []string
	for _, p := range list.GetPolicies() {
		m, err := p.TypedExtensionConfig.TypedConfig.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		name := string(m.ProtoReflect().Descriptor().Name())
		if l, ok := m.(*localityv3.WrrLocality); ok {
			name += "(" + policyNames(t, l.EndpointPickingPolicy) + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestPolicies(t *testing.T) {
	const roundRobin = "WrrLocality(RoundRobin)"
	for config, want := range map[string]string{
		`{}`: "",
		`{"loadBalancingConfig":[{"round_robin":{}}]}`:                                                                      roundRobin,
		`{"loadBalancingPolicy":"ROUND_ROBIN"}`:                                                                             roundRobin,
		`{"loadBalancingConfig":[{"rollcall_weighted":{}}]}`:                                                                "TypedStruct " + roundRobin,
		`{"loadBalancingConfig":[{"pick_first":{}}]}`:                                                                       "PickFirst " + roundRobin,
		`{"loadBalancingConfig":[{"least_request_experimental":{"choiceCount":3}},{"round_robin":{}}]}`:                     "WrrLocality(LeastRequest RoundRobin) " + roundRobin,
		`{"loadBalancingConfig":[{"weighted_round_robin":{}}]}`:                                                             "WrrLocality(ClientSideWeightedRoundRobin RoundRobin) " + roundRobin,
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"minRingSize":4}}]}`:                                            "RingHash " + roundRobin,
		`{"loadBalancingConfig":[{"rollcall_zone":{"childPolicy":[{"pick_first":{}}]}}]}`:                                   "PickFirst " + roundRobin,
		`{"loadBalancingConfig":[{"rollcall_zone":{}}]}`:                                                                    roundRobin,
		`{"loadBalancingConfig":[{"custom":{}},{"pick_first":{}}]}`:                                                         "PickFirst " + roundRobin,
		`{"loadBalancingConfig":[{"rollcall_zone":{"childPolicy":[{"rollcall_weighted":{}}]}},{"round_robin":{}},{"a":1}]}`: "TypedStruct " + roundRobin,
	} {
		c := cluster(resourceName{text: "svc", service: "svc"}, configOf(config))
		if err := c.ValidateAll(); err != nil {
			t.Errorf("%s: %v", config, err)
		}
		if got := policyNames(t, c.LoadBalancingPolicy); got != want {
			t.Errorf("%s: %s, want %s", config, got, want)
		}
	}
}

func TestMethods(t *testing.T) {
	c := configOf(`{"methodConfig":[
		{"name":[{"service":"a.B"}],"timeout":"1.5s"},
		{"name":[{}],"timeout":"10s","waitForReady":true},
		{"name":[{"service":"a.B","method":"C"},{"service":"d.E"}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE",4]}}]}`)
	l := clientListener(resourceName{text: "svc", service: "svc"}, c)
	if err := l.ValidateAll(); err != nil {
		t.Error(err)
	}
	var got []string
	rc := routeConfiguration("svc", "svc", c)
	if err := rc.ValidateAll(); err != nil {
		t.Error(err)
	}
	for _, r := range rc.VirtualHosts[0].Routes {
		got = append(got, fmt.Sprintf("%s %v %s", matchText(r.Match), r.GetRoute().GetMaxStreamDuration().GetMaxStreamDuration().AsDuration(), r.GetRoute().GetRetryPolicy().GetRetryOn()))
	}
	want := []string{"/a.B/C 0s unavailable,deadline-exceeded", "/a.B/ 1.5s ", "/d.E/ 0s unavailable,deadline-exceeded", " 10s "}
	if !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
	if want := []string{"methodConfig[1].waitForReady: xDS has no counterpart"}; !slices.Equal(c.unmapped, want) {
		t.Errorf("unmapped %q", c.unmapped)
	}
}

// wantPoliciesAccepted checks what clients reject a cluster or a route for.
func wantPoliciesAccepted(t *testing.T, config string, c *serviceConfig) {
	t.Helper()
	for _, p := range c.policies {
		switch p := p.(type) {
		case *ringv3.RingHash:
			if err := p.ValidateAll(); err != nil || p.GetMinimumRingSize().GetValue() > p.GetMaximumRingSize().GetValue() {
				t.Errorf("%s: %v, %v", config, p, err)
			}
		case *localityv3.WrrLocality:
			for _, inner := range p.EndpointPickingPolicy.Policies {
				m, err := inner.TypedExtensionConfig.TypedConfig.UnmarshalNew()
				if err != nil {
					t.Fatal(err)
				}
				if v, is := m.(interface{ ValidateAll() error }); is && v.ValidateAll() != nil {
					t.Errorf("%s: %v", config, v.ValidateAll())
				}
			}
		}
	}
	if name := c.hash.GetHeader().GetHeaderName(); strings.HasSuffix(name, "-bin") || strings.ContainsAny(name, " ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t.Errorf("%s: a hash of the header %q", config, name)
	}
}

// Of two ring_hash entries the first counts, and it weighs endpoints itself.
func TestTwoRings(t *testing.T) {
	c := configOf(`{"loadBalancingConfig":[{"ring_hash_experimental":{"requestHashHeader":"User"}},{"ring_hash_experimental":{"minRingSize":4,"requestHashHeader":"other"}}]}`)
	if name := c.hash.GetHeader().GetHeaderName(); !c.oneClass || name != "user" || len(c.policies) != 2 {
		t.Errorf("one class: %v, header %q, policies %v", c.oneClass, name, c.policies)
	}
}

// What is invalid is left out and told, and the rest is mapped.
func TestUnmapped(t *testing.T) {
	for config, want := range map[string]string{
		`nonsense`: "the service config: it is invalid",
		`{"loadBalancingConfig":[{"custom":{}}]}`:                                                                  "loadBalancingConfig[0].custom: xDS has no counterpart",
		`{"loadBalancingConfig":[{"a":{},"b":{}}]}`:                                                                "loadBalancingConfig[0]: it names 2 policies",
		`{"loadBalancingConfig":[{"pick_first":5}]}`:                                                               "loadBalancingConfig[0].pick_first: it is invalid",
		`{"methodConfig":[{"name":[{"method":"C"}]}]}`:                                                             `methodConfig[0].name: method "C" has no service`,
		`{"methodConfig":[{"name":[{}],"timeout":"-1s"}]}`:                                                         `methodConfig[0].timeout: "-1s" is not a positive number`,
		`{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":1,"initialBackoff":"1s","maxBackoff":"1s"}}]}`: "methodConfig[0].retryPolicy: maxAttempts is 1",
		`{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":2,"initialBackoff":"1s","maxBackoff":"1s","retryableStatusCodes":["ABORTED"]}}]}`: "methodConfig[0].retryPolicy.retryableStatusCodes: xDS cannot retry ABORTED",
		`{"retryThrottling":{}}`: "retryThrottling: xDS has no counterpart",
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"minRingSize":9000000}}]}`:                         "loadBalancingConfig[0].ring_hash_experimental.minRingSize: it is 9000000; 8388608 is the greatest",
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"maxRingSize":9000000}}]}`:                         "loadBalancingConfig[0].ring_hash_experimental.maxRingSize: it is 9000000; 8388608 is the greatest",
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"minRingSize":9,"maxRingSize":8}}]}`:               "loadBalancingConfig[0].ring_hash_experimental.minRingSize: it is 9, more than maxRingSize, which is used: 8",
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"requestHashHeader":"x y"}}]}`:                     `loadBalancingConfig[0].ring_hash_experimental.requestHashHeader: "x y" is not the name`,
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"requestHashHeader":"user-Bin"}}]}`:                `loadBalancingConfig[0].ring_hash_experimental.requestHashHeader: "user-bin" is not the name`,
		`{"loadBalancingConfig":[{"ring_hash_experimental":{}},{"ring_hash_experimental":{"minRingSize":9}}]}`: "loadBalancingConfig[1].ring_hash_experimental: the one before it is used",
		`{"loadBalancingConfig":[{"least_request_experimental":{"choiceCount":1}}]}`:                           "loadBalancingConfig[0].least_request_experimental.choiceCount: it is 1; it must be at least 2",
		`{"loadBalancingConfig":[{"rollcall_zone":{"spillBelow":{"zone":1e-9}}}]}`:                             "loadBalancingConfig[0].rollcall_zone.spillBelow.zone: it is 1e-09; 0.01 is the least",
		`{"loadBalancingConfig":[{"rollcall_zone":{"spillBelow":{"zone":0}}}]}`:                                "loadBalancingConfig[0].rollcall_zone.spillBelow.zone: it is 0; it must be above 0",
	} {
		c := configOf(config)
		if len(c.unmapped) == 0 || !strings.HasPrefix(c.unmapped[0], want) {
			t.Errorf("%s: unmapped %q, want %q", config, c.unmapped, want)
		}
		if len(c.routes) == 0 {
			t.Errorf("%s: no route", config)
		}
		wantPoliciesAccepted(t, config, c)
		if f := c.overprovisioning().Value; f < 100 || f > 10_000 {
			t.Errorf("%s: a factor of %d %%", config, f)
		}
	}
}
