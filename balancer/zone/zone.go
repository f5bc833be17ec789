// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package zone is the gRPC balancing policy "rollcall_zone": calls stay in the caller's zone
// while that has its share of the healthy servers, and spill over in proportion to what it
// lacks: to the other zones of the region, and from a region that has next to nothing left
// to anywhere. To use it, import it and name it in the service config:
//
//	{"loadBalancingConfig": [{"rollcall_zone": {
//	  "region":      "eu",
//	  "zone":        "eu-1",
//	  "subzone":     "",
//	  "spillBelow":  {"region": 0.1, "zone": 0.9, "subzone": 0.9},
//	  "childPolicy": [{"round_robin": {}}]
//	}}]}
//
// All fields may be left out; those shown for spillBelow and childPolicy are the defaults.
// Where the caller is comes from the environment for what the config leaves out
// (ROLLCALL_REGION, ROLLCALL_ZONE, ROLLCALL_SUBZONE); a part that is empty is not looked
// at. Where the servers are comes from their metadata. Without any part, and with servers in
// one place, the policy is its child policy.
//
// # The curve
//
// The capacity of a zone is the sum of the weights of its serving members, without those
// that cannot be connected to. With the capacities c of the zones of the caller's region,
// what is usual is m = sum(c*c)/sum(c), the capacity of the zone of the average server,
// and the share of the calls that stays in the zone is
//
//	min(1, c of the zone / (spillBelow * m))
//
// The rest goes to the other zones of the region. Of two zones of ten servers, the one that
// loses five keeps 67 % of its calls, so that its servers and the others' are equally busy.
// Regions, where the caller's is known, share in the same way, but begin at a tenth of what
// is usual: regions differ in size, and are far away.
//
// # Children
//
// Each group (the caller's subzone, the rest of the zone, the rest of the region, anywhere)
// has a child policy of its own, which is made when calls first go there, so that a healthy
// zone keeps no connections to others, and kept for five minutes after they stopped. Calls
// wait while no group that should have them is connected. A group that has not connected
// within 10 s, or whose members are all unhealthy, counts as having no capacity; of single
// members, health checks and outlier ejections are the child's alone, and take nothing from
// the capacity. A server whose place is changed in etcd moves to another child: that
// reconnects.
package zone

import (
	"encoding/json"
	"errors"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/rollcall-grpc/rollcall/internal/endpointattr"
	"github.com/rollcall-grpc/rollcall/internal/spread"
)

// Name is the policy's name in a service config.
const Name = "rollcall_zone"

const (
	keepUnused     = 5 * time.Minute  // a child that gets no calls
	connectTimeout = 10 * time.Second // as gRPC's priorities have it
)

func init() { balancer.Register(builder{}) }

type builder struct{}

func (builder) Name() string { return Name }

func (builder) ParseConfig(data json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	return parse(data)
}

func (builder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	p := &policy{cc: cc, opts: opts, err: errors.New(Name + ": no endpoints yet")}
	for i := range p.groups {
		p.groups[i] = &group{policy: p}
	}
	p.timer = time.AfterFunc(never, p.settle)
	return p
}

// policy divides the endpoints into groups, and the calls among those.
type policy struct {
	cc    balancer.ClientConn
	opts  balancer.BuildOptions
	timer *time.Timer // of settle

	// children is held during every call into a child. A child may call back at once,
	// which takes mu: who holds that must not take this.
	children sync.Mutex
	state    grpcresolver.State
	closed   bool

	mu       sync.Mutex
	settings *settings
	groups   [levels + 1]*group // by settings.group
	members  map[string]*member // by address
	places   map[place]*capacity
	err      error // why there is nobody to call, where there are no endpoints
	busy     bool  // children are being told: what they say is published afterwards
}

const never = math.MaxInt64

// member is one endpoint.
type member struct {
	place   place
	weight  float64
	addrs   int
	failing map[string]bool // those of its addresses that cannot be connected to
}

func (m *member) healthy() bool { return len(m.failing) < m.addrs }

// capacity is the sum of the weights of members.
type capacity struct{ all, healthy float64 }

func (p *policy) UpdateClientConnState(s balancer.ClientConnState) error {
	set, ok := s.BalancerConfig.(*settings)
	if !ok {
		var err error
		if set, err = parse(json.RawMessage("{}")); err != nil {
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
	p.sortLocked(s.ResolverState.Endpoints)
	if explained {
		p.err = balancer.ErrNoSubConnAvailable // calls wait, as with pick_first, for the resolver's error
	}
	p.mu.Unlock()
	err := p.tell(true)
	if len(s.ResolverState.Endpoints) == 0 {
		return balancer.ErrBadResolverState
	}
	return err
}

// sortLocked puts the endpoints into their groups. What is known of their addresses stays.
func (p *policy) sortLocked(endpoints []grpcresolver.Endpoint) {
	before := p.members
	p.members, p.places = make(map[string]*member, len(endpoints)), make(map[place]*capacity)
	for _, g := range p.groups {
		g.endpoints = nil
	}
	for _, ep := range endpoints {
		a := endpointattr.Attributes(ep)
		m := &member{place: place{a.Locality.Region, a.Locality.Zone, a.Locality.Subzone}, weight: float64(a.Weight), addrs: len(ep.Addresses)}
		for _, addr := range ep.Addresses {
			p.members[addr.Addr] = m
			if old := before[addr.Addr]; old != nil && old.failing[addr.Addr] {
				m.fail(addr.Addr, true)
			}
		}
		c := p.places[m.place]
		if c == nil {
			c = new(capacity)
			p.places[m.place] = c
		}
		if c.all += m.weight; m.healthy() {
			c.healthy += m.weight
		}
		g := p.groups[p.settings.group(m.place)]
		g.endpoints = append(g.endpoints, ep)
	}
	if p.err = nil; len(endpoints) == 0 {
		p.err = errors.New(Name + ": no endpoints")
	}
}

func (m *member) fail(addr string, failing bool) {
	if !failing {
		delete(m.failing, addr)
		return
	}
	if m.failing == nil {
		m.failing = make(map[string]bool)
	}
	m.failing[addr] = true
}

// noteLocked takes a SubConn's state in, and says whether the capacity of a place has
// changed. An address that failed is failing until it is connected, or given up.
func (p *policy) noteLocked(addrs []grpcresolver.Address, s connectivity.State) (changed bool) {
	if s == connectivity.Idle || s == connectivity.Connecting {
		return false
	}
	for _, addr := range addrs {
		m := p.members[addr.Addr]
		if m == nil {
			continue
		}
		before := m.healthy()
		m.fail(addr.Addr, s == connectivity.TransientFailure)
		if now := m.healthy(); now != before {
			changed = true
			if now {
				p.places[m.place].healthy += m.weight
			} else {
				p.places[m.place].healthy -= m.weight
			}
		}
	}
	return changed
}

// ResolverError tells the children; without endpoints it is what calls fail with.
func (p *policy) ResolverError(err error) {
	p.children.Lock()
	defer p.children.Unlock()
	p.mu.Lock()
	if p.err != nil {
		p.err = err
	}
	p.busy = true
	p.mu.Unlock()
	for _, g := range p.groups {
		if g.child != nil {
			g.child.policy.ResolverError(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = false
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

// settle makes the children that are needed by now, and closes those that were not for
// long. It is called by the timer.
func (p *policy) settle() {
	p.children.Lock()
	defer p.children.Unlock()
	if !p.closed {
		_ = p.tell(false) // a child's opinion of endpoints that it was told of for the first time
	}
}

// tell brings the children in line with the endpoints and their shares, with those that
// there are told of a new state where there is one, and publishes the outcome. It returns
// the first child's error.
func (p *policy) tell(anew bool) (first error) {
	p.mu.Lock()
	p.busy = true
	p.divideLocked()
	p.mu.Unlock()
	for _, g := range p.groups {
		if err := g.tell(anew); err != nil && first == nil {
			first = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = false
	p.publishLocked()
	return first
}

// divideLocked works out the share of each group.
func (p *policy) divideLocked() {
	if p.err != nil {
		return
	}
	healthy, all, sum := make(map[place]float64, len(p.places)), make(map[place]float64, len(p.places)), 0.0
	hoped, failing := make(map[place]float64, len(p.places)), false // for, had the failing groups recovered
	for at, c := range p.places {
		all[at] = c.all
		if p.groups[p.settings.group(at)].failingLocked() {
			hoped[at], failing = c.all, true
		} else {
			healthy[at], hoped[at] = c.healthy, c.healthy
			sum += c.healthy
		}
	}
	if sum == 0 {
		healthy = all
	}
	shares := p.settings.split(healthy)
	would := shares
	if failing {
		would = p.settings.split(hoped)
	}
	for i, share := range shares {
		g := p.groups[i]
		g.share = uint32(math.Round(share * spread.MaxRatio))
		if g.share > 0 || g.failingLocked() && would[i] > 0 {
			g.unused = time.Time{}
		} else if g.unused.IsZero() {
			g.unused = time.Now()
		}
	}
}

// publishLocked tells the channel how calls are divided now, and sees to it that settle is
// called when there is something to do.
func (p *policy) publishLocked() {
	if p.busy {
		return
	}
	if p.err != nil {
		p.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: base.NewErrPicker(p.err)})
		return
	}
	p.divideLocked()
	var shares, asked []uint32
	var ready, asks []balancer.Picker
	next := time.Duration(never)
	best := balancer.State{ConnectivityState: connectivity.TransientFailure}
	for i := len(p.groups) - 1; i >= 0; i-- { // the nearest first
		g := p.groups[i]
		next = min(next, g.dueLocked())
		s := g.current
		if s.Picker == nil {
			s = connecting // soon
		}
		if g.share == 0 {
			continue
		}
		switch {
		case s.ConnectivityState == connectivity.Ready:
			shares, ready = append(shares, g.share), append(ready, s.Picker)
			continue
		case s.ConnectivityState == connectivity.Idle && !g.idle: // ring_hash connects when there is a pick
			asked, asks = append(asked, g.share), append(asks, s.Picker)
		}
		if best.Picker == nil || rank[s.ConnectivityState] < rank[best.ConnectivityState] {
			best = s
		}
	}
	p.timer.Reset(next)
	if len(ready) > 0 {
		shares, ready = append(shares, asked...), append(ready, asks...)
	}
	switch len(ready) {
	case 0:
		p.cc.UpdateState(best)
	case 1:
		p.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Ready, Picker: ready[0]})
	default:
		among := func() ([]uint32, []balancer.Picker) { return shares, ready }
		p.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Ready, Picker: spread.NewPicker(among)})
	}
}

// rank says whose picker is taken where no group is connected.
var rank = map[connectivity.State]int{connectivity.Connecting: 0, connectivity.Idle: 1, connectivity.TransientFailure: 2}
