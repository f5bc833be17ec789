// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-grpc/rollcall"
)

// serviceConfig is what a gRPC service config means in xDS.
type serviceConfig struct {
	policies   []proto.Message                 // in the order of preference
	hash       *routev3.RouteAction_HashPolicy // of ring_hash; nil: none
	oneClass   bool                            // endpoints of a locality are together, whatever their weights: ring_hash weighs them
	routes     []route                         // the last matches everything
	known      bool                            // etcd has said which one there is
	unmapped   []string                        // what is left out, and why
	spillBelow float64                         // of rollcall_zone, for zones; leastSpillBelow at least
}

// route is what a methodConfig says of some methods.
type route struct {
	match   *routev3.RouteMatch
	timeout *routev3.RouteAction_MaxStreamDuration
	retry   *routev3.RetryPolicy
}

// methodConfig is an entry of a service config's "methodConfig".
type methodConfig struct {
	Name []struct {
		Service, Method string
	}
	WaitForReady            *bool
	Timeout                 *string
	MaxRequestMessageBytes  *json.Number
	MaxResponseMessageBytes *json.Number
	HedgingPolicy           json.RawMessage
	RetryPolicy             *struct {
		MaxAttempts          uint32
		InitialBackoff       string
		MaxBackoff           string
		BackoffMultiplier    float64
		RetryableStatusCodes []json.RawMessage
	}
}

// mapServiceConfig maps a service config, of which there may be none. What is invalid is left
// out as what cannot be mapped is.
func mapServiceConfig(config *rollcall.ServiceConfig) *serviceConfig {
	c := &serviceConfig{spillBelow: defaultSpillBelow}
	var raw struct {
		LoadBalancingConfig []map[string]json.RawMessage
		LoadBalancingPolicy string
		MethodConfig        []methodConfig
		RetryThrottling     json.RawMessage
		HealthCheckConfig   json.RawMessage
	}
	if config != nil && config.JSON != nil {
		if err := json.Unmarshal(config.JSON, &raw); err != nil {
			c.omit("the service config", "it is invalid: %v", err)
		}
	}
	if raw.LoadBalancingConfig == nil && raw.LoadBalancingPolicy != "" {
		raw.LoadBalancingConfig = []map[string]json.RawMessage{{strings.ToLower(raw.LoadBalancingPolicy): json.RawMessage("{}")}}
	}
	if c.mapPolicies(raw.LoadBalancingConfig); len(c.policies) > 0 {
		c.prefer(inLocalities(&roundrobinv3.RoundRobin{})) // which all know
	}
	for i := range raw.MethodConfig {
		c.mapMethod(fmt.Sprintf("methodConfig[%d]", i), &raw.MethodConfig[i])
	}
	slices.SortStableFunc(c.routes, func(a, b route) int { return len(matchText(b.match)) - len(matchText(a.match)) })
	if n := len(c.routes); n == 0 || matchText(c.routes[n-1].match) != "" {
		c.routes = append(c.routes, route{match: prefixMatch("")})
	}
	if raw.RetryThrottling != nil {
		c.omit("retryThrottling", "xDS has no counterpart")
	}
	if raw.HealthCheckConfig != nil {
		c.omit("healthCheckConfig", "xDS has no counterpart that gRPC reads")
	}
	return c
}

func (c *serviceConfig) omit(what, format string, args ...any) {
	c.unmapped = append(c.unmapped, what+": "+fmt.Sprintf(format, args...))
}

// mapMethod makes a route for each name of a methodConfig.
func (c *serviceConfig) mapMethod(where string, m *methodConfig) {
	if m.WaitForReady != nil {
		c.omit(where+".waitForReady", "xDS has no counterpart")
	}
	if m.MaxRequestMessageBytes != nil || m.MaxResponseMessageBytes != nil {
		c.omit(where+".max...MessageBytes", "xDS has no counterpart")
	}
	if m.HedgingPolicy != nil {
		c.omit(where+".hedgingPolicy", "gRPC reads none from xDS")
	}
	var r route
	if m.Timeout != nil {
		timeout, err := parseDuration(*m.Timeout)
		if err != nil {
			c.omit(where+".timeout", "%v", err)
		} else {
			r.timeout = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: timeout}
		}
	}
	r.retry = c.mapRetry(where, m)
	for _, name := range m.Name {
		switch {
		case name.Service == "" && name.Method != "":
			c.omit(where+".name", "method %q has no service", name.Method)
			continue
		case name.Service == "":
			r.match = prefixMatch("")
		case name.Method == "":
			r.match = prefixMatch("/" + name.Service + "/")
		default:
			r.match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: "/" + name.Service + "/" + name.Method}}
		}
		c.routes = append(c.routes, r)
	}
}

// matchText returns the path or prefix of a route: the longer, the more special.
func matchText(m *routev3.RouteMatch) string { return m.GetPath() + m.GetPrefix() }

// retryOn are the status codes that a route can retry, by what a service config calls them and
// by number.
var retryOn = map[string]string{
	"CANCELLED": "cancelled", "1": "cancelled",
	"DEADLINE_EXCEEDED": "deadline-exceeded", "4": "deadline-exceeded",
	"RESOURCE_EXHAUSTED": "resource-exhausted", "8": "resource-exhausted",
	"INTERNAL": "internal", "13": "internal",
	"UNAVAILABLE": "unavailable", "14": "unavailable",
}

func (c *serviceConfig) mapRetry(where string, m *methodConfig) *routev3.RetryPolicy {
	p := m.RetryPolicy
	if p == nil {
		return nil
	}
	where += ".retryPolicy"
	initial, err := parseDuration(p.InitialBackoff)
	if err != nil {
		c.omit(where, "initialBackoff: %v", err)
		return nil
	}
	longest, err := parseDuration(p.MaxBackoff)
	if err != nil {
		c.omit(where, "maxBackoff: %v", err)
		return nil
	}
	if p.MaxAttempts < 2 {
		c.omit(where, "maxAttempts is %d; it must be at least 2", p.MaxAttempts)
		return nil
	}
	var on []string
	for _, raw := range p.RetryableStatusCodes {
		code := strings.Trim(string(raw), `"`)
		if name, ok := retryOn[strings.ToUpper(code)]; ok {
			on = append(on, name)
		} else {
			c.omit(where+".retryableStatusCodes", "xDS cannot retry %s", code)
		}
	}
	if len(on) == 0 {
		c.omit(where, "no status code is left to retry")
		return nil
	}
	if p.BackoffMultiplier != 2 {
		c.omit(where+".backoffMultiplier", "it is 2 in xDS, not %v", p.BackoffMultiplier)
	}
	if longest.AsDuration() < initial.AsDuration() { // which clients reject
		longest = initial
	}
	return &routev3.RetryPolicy{
		RetryOn:    strings.Join(on, ","),
		NumRetries: wrapperspb.UInt32(p.MaxAttempts - 1),
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: initial,
			MaxInterval:  longest,
		},
	}
}

// parseDuration reads a duration of a service config, "1.5s", which must be positive.
func parseDuration(text string) (*durationpb.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || !strings.HasSuffix(text, "s") || d <= 0 {
		return nil, fmt.Errorf("%q is not a positive number of seconds such as \"1.5s\"", text)
	}
	return durationpb.New(d), nil
}

// overprovisioning returns the factor, in percent, by which Envoy multiplies the healthy share
// of a locality before calls spill over to the next: what rollcall_zone's spillBelow says.
func (c *serviceConfig) overprovisioning() *wrapperspb.UInt32Value {
	return wrapperspb.UInt32(uint32(math.Round(100 / c.spillBelow)))
}
