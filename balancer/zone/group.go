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

// group is the endpoints that are equally near, and what balances among them.
type group struct {
	policy *policy
	child  *child // nil: not made; guarded by policy.children

	// Guarded by policy.mu.
	endpoints []grpcresolver.Endpoint
	share     uint32         // of the calls, out of spread.MaxRatio
	unused    time.Time      // since when it gets none, though it could; zero: it does
	current   balancer.State // of the child; without a picker: there is none
	waiting   time.Time      // since when the child connects; zero: it does not
	idle      bool           // the child waits to be told to connect
}

// child is a group's policy, and the channel as that sees it. SubConns pass through.
type child struct {
	balancer.ClientConn
	group  *group
	policy balancer.Balancer
	name   string
	closed bool // guarded by the policy's mu
}

var connecting = balancer.State{ConnectivityState: connectivity.Connecting, Picker: base.NewErrPicker(balancer.ErrNoSubConnAvailable)}

// tell brings the child in line with the group, with children held.
func (g *group) tell(anew bool) error {
	p := g.policy
	p.mu.Lock()
	endpoints, share, set := g.endpoints, g.share, p.settings
	expired := !g.unused.IsZero() && time.Since(g.unused) >= keepUnused
	p.mu.Unlock()
	if c := g.child; c != nil && (len(endpoints) == 0 || expired || c.name != set.child.builder.Name()) {
		g.close()
	}
	switch {
	case len(endpoints) == 0 || g.child == nil && share == 0:
		return nil
	case g.child == nil:
		g.make(set.child.builder)
	case !anew:
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

// connect tells a child that waits for it to connect, if it gets calls.
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
	g.current, g.waiting = connecting, time.Now()
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
	g.current, g.waiting, g.unused, g.idle = balancer.State{}, time.Time{}, time.Time{}, false
	for _, ep := range g.endpoints {
		p.noteLocked(ep.Addresses, connectivity.Shutdown)
	}
	p.mu.Unlock()
	g.child.policy.Close()
	g.child = nil
}

// failingLocked says whether the child has nobody to call.
func (g *group) failingLocked() bool {
	return g.current.ConnectivityState == connectivity.TransientFailure ||
		!g.waiting.IsZero() && time.Since(g.waiting) >= connectTimeout
}

// dueLocked returns how long it is until the group has to be looked at.
func (g *group) dueLocked() time.Duration {
	switch {
	case len(g.endpoints) == 0:
	case g.share > 0 && (g.current.Picker == nil || g.idle):
		return 0
	case !g.waiting.IsZero() && !g.failingLocked():
		return time.Until(g.waiting.Add(connectTimeout))
	case !g.unused.IsZero() && g.current.Picker != nil:
		return time.Until(g.unused.Add(keepUnused))
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
	g.current = s
	g.idle = s.ConnectivityState == connectivity.Idle
	if s.ConnectivityState != connectivity.Connecting {
		g.waiting = time.Time{}
	} else if g.waiting.IsZero() {
		g.waiting = time.Now()
	}
	g.policy.publishLocked()
}

// NewSubConn listens to who can be connected to.
func (c *child) NewSubConn(addrs []grpcresolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	p, tell := c.group.policy, opts.StateListener
	opts.StateListener = func(s balancer.SubConnState) {
		p.children.Lock()
		defer p.children.Unlock()
		p.mu.Lock()
		changed := p.noteLocked(addrs, s.ConnectivityState)
		p.mu.Unlock()
		if tell != nil {
			tell(s)
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
