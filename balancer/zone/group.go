// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	grpcresolver "google.golang.org/grpc/resolver"
)

// group is the endpoints that are equally near to the caller, and their child policy.
type group struct {
	policy *policy
	labels []string // of its metrics
	child  *child   // nil: not made; guarded by policy.children

	// Guarded by policy.mu.
	endpoints       []grpcresolver.Endpoint
	share           uint32         // of the calls, out of spread.MaxRatio
	unusedSince     time.Time      // zero: it gets calls, or would if it recovered
	state           balancer.State // of the child; without a picker: there is none
	connectingSince time.Time      // zero: the child is not connecting
	idle            bool           // the child waits for ExitIdle
	recorded        int64          // percent that were last recorded
}

// child is a group's policy, and the channel that it sees. SubConns pass through.
type child struct {
	balancer.ClientConn
	group  *group
	policy balancer.Balancer
	name   string
	closed bool // guarded by the policy's mu
}

const (
	keepUnused     = 5 * time.Minute  // a child that gets no calls
	connectTimeout = 10 * time.Second // as in gRPC's priority policy
)

var connecting = balancer.State{ConnectivityState: connectivity.Connecting, Picker: base.NewErrPicker(balancer.ErrNoSubConnAvailable)}

// update makes, updates or closes the child, with policy.children held. A child that exists
// is updated only where there is a new state.
func (g *group) update(newState bool) error {
	p := g.policy
	p.mu.Lock()
	endpoints, share, set := g.endpoints, g.share, p.settings
	expired := !g.unusedSince.IsZero() && time.Since(g.unusedSince) >= keepUnused
	p.mu.Unlock()
	if c := g.child; c != nil && (len(endpoints) == 0 || expired || c.name != set.child.builder.Name()) {
		g.close()
	}
	switch {
	case len(endpoints) == 0 || g.child == nil && share == 0:
		return nil
	case g.child == nil:
		g.make(set.child.builder)
	case !newState:
		g.connect()
		return nil
	}
	defer g.connect()
	state := p.state
	state.Endpoints, state.Addresses = endpoints, nil
	for _, ep := range endpoints {
		state.Addresses = append(state.Addresses, ep.Addresses...)
	}
	return g.child.policy.UpdateClientConnState(balancer.ClientConnState{ResolverState: state, BalancerConfig: set.child.config})
}

// connect has a child that waits for it connect, if it gets calls.
func (g *group) connect() {
	g.policy.mu.Lock()
	due := g.idle && g.share > 0
	g.idle = g.idle && !due
	g.policy.mu.Unlock()
	if due {
		g.child.policy.ExitIdle()
	}
}

func (g *group) make(b balancer.Builder) {
	p := g.policy
	p.mu.Lock()
	g.state, g.connectingSince = connecting, time.Now()
	p.mu.Unlock()
	c := &child{ClientConn: p.cc, group: g, name: b.Name()}
	c.policy = b.Build(c, p.opts)
	g.child = c
}

func (g *group) close() {
	if g.child == nil {
		return
	}
	p := g.policy
	p.mu.Lock()
	g.child.closed = true
	g.state, g.connectingSince, g.unusedSince, g.idle = balancer.State{}, time.Time{}, time.Time{}, false
	for _, ep := range g.endpoints {
		p.observeLocked(ep.Addresses, connectivity.Shutdown)
	}
	g.recordShareLocked(0) // of a child that is made anew, what is published next
	p.mu.Unlock()
	g.child.policy.Close()
	g.child = nil
}

// failingLocked reports whether the child cannot make calls.
func (g *group) failingLocked() bool {
	return g.state.ConnectivityState == connectivity.TransientFailure ||
		!g.connectingSince.IsZero() && time.Since(g.connectingSince) >= connectTimeout
}

// dueLocked returns the time until the group needs a reconcile.
func (g *group) dueLocked() time.Duration {
	switch {
	case len(g.endpoints) == 0:
	case g.share > 0 && (g.state.Picker == nil || g.idle):
		return 0
	case !g.connectingSince.IsZero() && !g.failingLocked():
		return time.Until(g.connectingSince.Add(connectTimeout))
	case !g.unusedSince.IsZero() && g.state.Picker != nil:
		return time.Until(g.unusedSince.Add(keepUnused))
	}
	return never
}

func (c *child) UpdateState(s balancer.State) {
	g := c.group
	g.policy.mu.Lock()
	defer g.policy.mu.Unlock()
	if c.closed {
		return
	}
	g.state = s
	g.idle = s.ConnectivityState == connectivity.Idle
	if s.ConnectivityState != connectivity.Connecting {
		g.connectingSince = time.Time{}
	} else if g.connectingSince.IsZero() {
		g.connectingSince = time.Now()
	}
	g.policy.publishLocked()
}

// NewSubConn has the policy observe the SubConn's state before the child does.
func (c *child) NewSubConn(addrs []grpcresolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	p, listener := c.group.policy, opts.StateListener
	opts.StateListener = func(s balancer.SubConnState) {
		p.children.Lock()
		defer p.children.Unlock()
		p.mu.Lock()
		changed := p.observeLocked(addrs, s.ConnectivityState)
		p.mu.Unlock()
		if listener != nil {
			listener(s)
		}
		if changed && !p.closed {
			p.mu.Lock()
			p.publishLocked()
			p.mu.Unlock()
		}
	}
	//lint:ignore SA1019 a wrapper passes on what its child asks for
	return c.ClientConn.NewSubConn(addrs, opts)
}
