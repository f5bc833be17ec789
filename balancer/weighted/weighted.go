// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package weighted is the gRPC balancing policy "rollcall_weighted": calls in proportion to
// static weights, spread as evenly as possible. To use it, import it and name it in
// the service config:
//
//	{"loadBalancingConfig": [{"rollcall_weighted": {}}]}
//
// The weights are those that gRPC's own policies read, which package resolver sets from the
// field "weight" of an endpoint's metadata; an endpoint without one weighs 1. Ratios above
// 65,535 to 1 are scaled down to that. A changed weight counts from the next pick on, and
// reconnects nothing. Calls go to endpoints that are connected and, where the service config
// asks for health checks, healthy.
//
// The policy records rollcall.lb.weighted.endpoints and ready_endpoints through gRPC's own
// metrics, which google.golang.org/grpc/stats/opentelemetry exports where they are asked for.
//
// For weights that follow the load that servers report, use gRPC's weighted_round_robin.
//
// # Experimental
//
// It rests on gRPC's packages balancer and experimental/balancer/weight, which are
// experimental.
package weighted

import (
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental/balancer/weight"
	estats "google.golang.org/grpc/experimental/stats"

	"github.com/rollcall-grpc/rollcall/internal/spread"
)

// Name is the policy's name in a service config. It takes no settings.
const Name = "rollcall_weighted"

func init() { balancer.Register(builder{}) }

type builder struct{}

func (builder) Name() string { return Name }

func (builder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	newLevel := func(metric *estats.Int64UpDownCountHandle) *level {
		return &level{metric: metric, recorder: cc.MetricsRecorder(), target: opts.Target.String()}
	}
	p := &policy{endpoints: newLevel(endpointsMetric), ready: newLevel(readyMetric)}
	p.Balancer = endpointsharding.NewBalancer(conn{cc, p.ready}, opts, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
	return p
}

// policy has a child for each endpoint, which connects and watches its health.
type policy struct {
	balancer.Balancer
	endpoints, ready *level
}

func (p *policy) UpdateClientConnState(s balancer.ClientConnState) error {
	p.endpoints.set(len(s.ResolverState.Endpoints))
	return p.Balancer.UpdateClientConnState(balancer.ClientConnState{
		ResolverState: pickfirst.EnableHealthListener(s.ResolverState),
	})
}

func (p *policy) Close() {
	p.Balancer.Close()
	p.endpoints.close()
	p.ready.close()
}

// conn replaces the children's picker by one that follows the weights.
type conn struct {
	balancer.ClientConn
	ready *level
}

func (c conn) UpdateState(s balancer.State) {
	if s.ConnectivityState == connectivity.Ready {
		s.Picker = newPicker(endpointsharding.ChildStatesFromPicker(s.Picker), c.ready.later())
	} else {
		c.ready.set(0)
	}
	c.ClientConn.UpdateState(s)
}

// newPicker reads the children at the first pick: while thousands connect one after the
// other, most pickers are replaced before they are used. setReady is told how many are ready.
func newPicker(children []endpointsharding.ChildState, setReady func(int)) balancer.Picker {
	return spread.NewPicker(func() (weights []uint32, ready []balancer.Picker) {
		for _, child := range children {
			if child.State.ConnectivityState == connectivity.Ready {
				ready = append(ready, child.State.Picker)
				weights = append(weights, weight.FromEndpoint(child.Endpoint).Weight)
			}
		}
		setReady(len(ready))
		return weights, ready
	})
}
