// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"slices"
	"sync"
	"sync/atomic"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

// choice is what a channel may call, in no order. States share what the endpoints point to.
type choice struct {
	endpoints []grpcresolver.Endpoint
	hashes    []uint64 // of their keys
}

func (c *choice) grow(n int) {
	c.endpoints, c.hashes = slices.Grow(c.endpoints, n), slices.Grow(c.hashes, n)
}

// set shows an instance at an index, which may be the one after the last.
func (c *choice) set(i int, inst *rollcall.Instance, addrs []grpcresolver.Address) {
	if i == len(c.endpoints) {
		c.endpoints, c.hashes = append(c.endpoints, grpcresolver.Endpoint{}), append(c.hashes, 0)
	}
	c.hashes[i] = hashOf(inst.Key)
	c.endpoints[i] = endpointOf(inst, addrs)
}

// drop fills the gap that an endpoint leaves with the last one, and returns the address
// of that.
func (c *choice) drop(i int) (moved string) {
	last := len(c.endpoints) - 1
	moved = c.endpoints[last].Addresses[0].Addr
	c.endpoints[i], c.hashes[i] = c.endpoints[last], c.hashes[last]
	c.endpoints[last] = grpcresolver.Endpoint{} // let go
	c.endpoints, c.hashes = c.endpoints[:last], c.hashes[:last]
	return moved
}

// view keeps the choice for one service and selector up to date, change by change, once for
// all channels. Chosen are the instances that the selector takes and whose address the
// policy takes, without the draining ones unless all are, one an address (the newest by
// CreateRevision, then the least key); beside them those that are held, where nobody else
// has their address.
type view struct {
	selector rollcall.Selector
	policy   rollcall.AddressPolicy

	mu      sync.RWMutex
	snap    *rollcall.Snapshot // that the rest is a function of; nil at first
	places  map[string]*place  // by address
	refused map[string]rollcall.Refused
	serving int  // instances that are taken and not draining
	odd     bool // others than the serving ones may be chosen: some are held, or none serve
	chosen  choice
	version int // of what is chosen: grows when a channel could see a difference

	room atomic.Pointer[[]grpcresolver.Endpoint] // for the next state
}

// place is an address, and the instances that have it: nearly always one.
type place struct {
	addr   [1]grpcresolver.Address // as endpoints have it
	rivals []rival
	only   [1]rival           // what rivals begins in
	chosen *rollcall.Instance // one of them; nil: none
	index  int                // of chosen in the choice
}

type rival struct {
	*rollcall.Instance
	draining bool
}

func newView(selector rollcall.Selector, policy rollcall.AddressPolicy) *view {
	return &view{selector: selector, policy: policy, places: make(map[string]*place), refused: make(map[string]rollcall.Refused), odd: true}
}

// follow takes in the latest snapshot of a subscription, and returns those refused by the
// policy that nobody has been told of yet.
func (v *view) follow(sub *rollcall.Subscription) (fresh []rollcall.Refused) {
	v.mu.RLock()
	same := v.snap == sub.Latest()
	v.mu.RUnlock()
	if same {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if snap := sub.Latest(); snap != v.snap {
		fresh = v.apply(snap)
	}
	return fresh
}

// state returns what is chosen, in a channel's order, unless that is the version that the
// channel has, and the version.
func (v *view) state(o order, has int) (state []grpcresolver.Endpoint, version int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.version != has {
		var room []grpcresolver.Endpoint
		if p := v.room.Swap(nil); p != nil {
			room = *p
		}
		state = o.sorted(&v.chosen, room)
	}
	return state, v.version
}

// large is the size of a state that is larger than a page.
const large = 128

// prepare gets memory for a state after one of n endpoints, in advance: a page that was
// never touched costs more than all that is written to it.
func (v *view) prepare(n int) {
	if n >= large && v.room.Load() == nil {
		room := make([]grpcresolver.Endpoint, n+n/16+4)
		clear(room)
		v.room.Store(&room)
	}
}

// refusals returns how many instances the policy refuses.
func (v *view) refusals() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.refused)
}

func (v *view) apply(snap *rollcall.Snapshot) (fresh []rollcall.Refused) {
	usual := !v.odd || len(v.chosen.endpoints) == 0
	var touched []*place
	come := func(inst *rollcall.Instance) {
		if !v.selector.Takes(inst) {
			return
		}
		if err := v.policy.Check(inst.Addr); err != nil {
			v.refused[inst.Key] = rollcall.Refused{Instance: inst, Cause: err}
			fresh = append(fresh, v.refused[inst.Key])
			return
		}
		if p, alone := v.add(inst); alone && usual {
			v.choose(p, inst) // at once, while it is in the processor's cache
		} else {
			touched = append(touched, p)
		}
	}
	if v.snap == nil { // all come
		all := snap.Instances()
		v.places = make(map[string]*place, len(all))
		v.chosen.grow(len(all))
		for _, inst := range all {
			come(inst)
		}
	} else {
		for _, c := range snap.Diff(v.snap) {
			if c.Old != nil {
				if p := v.remove(c.Old); p != nil {
					touched = append(touched, p)
				}
			}
			if c.New != nil {
				come(c.New)
			}
		}
	}
	v.snap = snap
	v.odd = len(snap.Held()) > 0 || v.serving == 0
	if v.odd || !usual {
		v.chooseAll()
		return fresh
	}
	for _, p := range touched {
		v.choose(p, best(p.rivals, false))
	}
	for _, p := range touched {
		if len(p.rivals) == 0 {
			delete(v.places, p.addr[0].Addr)
		}
	}
	return fresh
}

// add returns where the instance is now, and whether it is alone there and serves.
func (v *view) add(inst *rollcall.Instance) (p *place, alone bool) {
	p = v.places[inst.Addr]
	if p == nil {
		p = &place{addr: [1]grpcresolver.Address{{Addr: inst.Addr}}}
		p.rivals = p.only[:0]
		v.places[inst.Addr] = p
		alone = true
	}
	r := rival{inst, inst.Draining()}
	p.rivals = append(p.rivals, r)
	if !r.draining {
		v.serving++
	}
	return p, alone && !r.draining
}

// remove returns where the instance was, nil where it was passed over.
func (v *view) remove(inst *rollcall.Instance) *place {
	if !v.selector.Takes(inst) {
		return nil
	}
	if _, ok := v.refused[inst.Key]; ok {
		delete(v.refused, inst.Key)
		return nil
	}
	p := v.places[inst.Addr]
	p.rivals = slices.DeleteFunc(p.rivals, func(r rival) bool { return r.Key == inst.Key })
	if !inst.Draining() {
		v.serving--
	}
	return p
}

// best returns which of several instances of one address stands for it: not a draining
// one, unless asked for; nil where there is none.
func best(rivals []rival, draining bool) (best *rollcall.Instance) {
	for _, r := range rivals {
		switch {
		case r.draining && !draining:
		case best == nil, best.CreateRevision < r.CreateRevision, best.CreateRevision == r.CreateRevision && r.Key < best.Key:
			best = r.Instance
		}
	}
	return best
}

// choose has an instance stand for a place, nil for none.
func (v *view) choose(p *place, inst *rollcall.Instance) {
	switch {
	case looksSame(inst, p.chosen):
		return
	case inst == nil:
		v.places[v.chosen.drop(p.index)].index = p.index
	case p.chosen == nil:
		p.index = len(v.chosen.endpoints)
		v.chosen.set(p.index, inst, p.addr[:])
	default:
		v.chosen.set(p.index, inst, p.addr[:])
	}
	p.chosen = inst
	v.version++
}

// looksSame says whether a channel could see no difference between two instances of one
// address, or none.
func looksSame(a, b *rollcall.Instance) bool {
	return a == b || a != nil && b != nil && a.Key == b.Key && a.SameValue(b)
}

// chooseAll chooses anew everywhere, by all the rules.
func (v *view) chooseAll() {
	before := make(map[string]int, len(v.chosen.endpoints))
	for i, ep := range v.chosen.endpoints {
		before[InstanceOf(ep).Key] = i
	}
	var next choice
	next.grow(len(v.places))
	changed := false
	take := func(inst *rollcall.Instance, addrs []grpcresolver.Address) {
		if inst == nil {
			return
		}
		at := len(next.endpoints)
		next.set(at, inst, addrs)
		if i, ok := before[inst.Key]; ok && looksSame(inst, InstanceOf(v.chosen.endpoints[i])) {
			next.endpoints[at] = v.chosen.endpoints[i]
		} else {
			changed = true
		}
	}
	for _, p := range v.places {
		p.chosen = nil
		if take(best(p.rivals, false), p.addr[:]); len(p.rivals) == 0 {
			delete(v.places, p.addr[0].Addr)
		}
	}
	gone := make(map[string][]rival)
	for _, inst := range v.snap.Held() {
		if v.places[inst.Addr] == nil && v.selector.Takes(inst) && v.policy.Check(inst.Addr) == nil {
			gone[inst.Addr] = append(gone[inst.Addr], rival{inst, false})
		}
	}
	for addr, rivals := range gone {
		take(best(rivals, true), []grpcresolver.Address{{Addr: addr}})
	}
	if len(next.endpoints) == 0 {
		for _, p := range v.places {
			take(best(p.rivals, true), p.addr[:])
		}
	}
	if changed || len(next.endpoints) != len(v.chosen.endpoints) {
		v.chosen = next
		v.version++
	}
	for i, ep := range v.chosen.endpoints {
		inst := InstanceOf(ep)
		if p := v.places[inst.Addr]; p != nil {
			p.chosen, p.index = inst, i
		}
	}
}
