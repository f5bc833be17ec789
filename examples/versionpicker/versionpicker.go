// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package versionpicker is an example of a gRPC balancing policy that reads what Rollcall knows of an
// endpoint: a call goes to the servers of the version that its context asks for, and to any server
// if there is none of that version, or none is asked for. To use it, import it and name it in the service
// config:
//
//	{"loadBalancingConfig": [{"version_picker": {}}]}
package versionpicker

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/resolver"
)

// Name is the policy's name in a service config.
const Name = "version_picker"

func init() { balancer.Register(builder{}) }

type versionKey struct{}

// WithVersion returns a context for calls to servers of a version.
func WithVersion(ctx context.Context, version string) context.Context {
	return context.WithValue(ctx, versionKey{}, version)
}

type builder struct{}

func (builder) Name() string { return Name }

// Build has gRPC connect to every endpoint, and replaces what chooses among them.
func (builder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return endpointsharding.NewBalancer(conn{cc}, opts, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
}

type conn struct{ balancer.ClientConn }

func (c conn) UpdateState(s balancer.State) {
	if s.ConnectivityState == connectivity.Ready {
		s.Picker = newPicker(endpointsharding.ChildStatesFromPicker(s.Picker))
	}
	c.ClientConn.UpdateState(s)
}

// picker is immutable but for its counter: gRPC gets another when an endpoint comes, goes or changes.
type picker struct {
	all       []balancer.Picker // one for each endpoint that is connected
	byVersion map[string][]balancer.Picker
	next      atomic.Uint32
}

func newPicker(children []endpointsharding.ChildState) *picker {
	p := &picker{byVersion: make(map[string][]balancer.Picker)}
	for _, child := range children {
		if child.State.ConnectivityState != connectivity.Ready {
			continue
		}
		p.all = append(p.all, child.State.Picker)
		if instance := resolver.InstanceFromEndpoint(child.Endpoint); instance != nil { // nil: of another resolver
			version := instance.Attributes().Version
			p.byVersion[version] = append(p.byVersion[version], child.State.Picker)
		}
	}
	return p
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	among := p.all
	if version, ok := info.Ctx.Value(versionKey{}).(string); ok && len(p.byVersion[version]) > 0 {
		among = p.byVersion[version]
	}
	return among[int(p.next.Add(1)%uint32(len(among)))].Pick(info)
}
