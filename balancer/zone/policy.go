// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"encoding/json"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall/internal/endpointattr"
)

// policy divides the endpoints into groups, and the calls among those.
type policy struct {
	builder builder
	cc      balancer.ClientConn
	opts    balancer.BuildOptions
	timer   *time.Timer // of reconcile

	// children is held during every call into a child. A child may call back at once,
	// which takes mu: never lock children while holding mu.
	children sync.Mutex
	state    grpcresolver.State
	closed   bool

	mu         sync.Mutex
	settings   *settings
	groups     [levels + 1]*group // by settings.group
	members    map[string]*member // by address
	capacities map[locality]*capacity
	err        error // why calls fail while there are no endpoints
	updating   bool  // children are being updated; the outcome is published afterwards
}

func (p *policy) UpdateClientConnState(s balancer.ClientConnState) error {
	set, ok := s.BalancerConfig.(*settings)
	if !ok {
		var err error
		if set, err = parse(json.RawMessage("{}"), p.builder.caller()); err != nil {
			return err
		}
	}
	p.children.Lock()
	defer p.children.Unlock()
	explained := len(s.ResolverState.Endpoints) > 0 && grpcresolver.ValidateEndpoints(s.ResolverState.Endpoints) != nil
	if explained {
		s.ResolverState.Endpoints = nil // none has an address
	}
	p.state = s.ResolverState
	p.mu.Lock()
	p.settings = set
	p.groupLocked(s.ResolverState.Endpoints)
	if explained {
		p.err = balancer.ErrNoSubConnAvailable // calls wait, as with pick_first, for the resolver's error
	}
	p.mu.Unlock()
	err := p.update(true)
	if len(s.ResolverState.Endpoints) == 0 {
		return balancer.ErrBadResolverState
	}
	return err
}

// groupLocked puts the endpoints into their groups. What is known of their addresses stays.
func (p *policy) groupLocked(endpoints []grpcresolver.Endpoint) {
	before := p.members
	p.members, p.capacities = make(map[string]*member, len(endpoints)), make(map[locality]*capacity)
	for _, g := range p.groups {
		g.endpoints = nil
	}
	for _, ep := range endpoints {
		a := endpointattr.Attributes(ep)
		m := &member{locality: localityOf(a.Locality), weight: float64(a.Weight), addrs: len(ep.Addresses)}
		for _, addr := range ep.Addresses {
			p.members[addr.Addr] = m
			if old := before[addr.Addr]; old != nil && old.failing[addr.Addr] {
				m.setFailing(addr.Addr, true)
			}
		}
		c := p.capacities[m.locality]
		if c == nil {
			c = new(capacity)
			p.capacities[m.locality] = c
		}
		if c.all += m.weight; m.healthy() {
			c.healthy += m.weight
		}
		g := p.groups[p.settings.group(m.locality)]
		g.endpoints = append(g.endpoints, ep)
	}
	if p.err = nil; len(endpoints) == 0 {
		p.err = errors.New(Name + ": no endpoints")
	}
}

// update updates the children for the endpoints and their shares, those that exist only
// where there is a new state, and publishes the outcome. It returns the first child's error.
func (p *policy) update(newState bool) (first error) {
	p.mu.Lock()
	p.updating = true
	p.divideLocked()
	p.mu.Unlock()
	for _, g := range p.groups {
		if err := g.update(newState); err != nil && first == nil {
			first = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.updating = false
	p.publishLocked()
	return first
}

// reconcile makes the children that are needed by now, and closes those that have been
// unused for long. The timer calls it.
func (p *policy) reconcile() {
	p.children.Lock()
	defer p.children.Unlock()
	if !p.closed {
		_ = p.update(false) // gRPC takes errors only in UpdateClientConnState
	}
}

// ResolverError passes an error on to the children. Without endpoints calls fail with it.
func (p *policy) ResolverError(err error) {
	p.children.Lock()
	defer p.children.Unlock()
	p.mu.Lock()
	if p.err != nil {
		p.err = err
	}
	p.updating = true
	p.mu.Unlock()
	for _, g := range p.groups {
		if g.child != nil {
			g.child.policy.ResolverError(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.updating = false
	p.publishLocked()
}

// UpdateSubConnState is never called: every SubConn has a listener.
func (p *policy) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle connects the children that get calls.
func (p *policy) ExitIdle() {
	p.children.Lock()
	defer p.children.Unlock()
	for _, g := range p.groups {
		p.mu.Lock()
		called := g.share > 0
		p.mu.Unlock()
		if g.child != nil && called {
			g.child.policy.ExitIdle()
		}
	}
}

func (p *policy) Close() {
	p.children.Lock()
	defer p.children.Unlock()
	p.closed = true
	for _, g := range p.groups {
		g.close()
	}
	p.timer.Stop()
}
