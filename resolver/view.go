// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

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
	refused map[string]rollcall.Disallowed
	serving int                             // instances that are taken and not draining
	odd     bool                            // others than the serving ones may be chosen: some are held, or all drain
	places  map[string]int                  // by address: where the choice has it; nil until it is needed; not read while odd
	crowds  map[string][]*rollcall.Instance // by address: who is taken, unless it is one that serves
	chosen  choice
	version int // of what is chosen: grows when a channel could see a difference

	room atomic.Pointer[[]grpcresolver.Endpoint] // for the next state
}

func newView(selector rollcall.Selector, policy rollcall.AddressPolicy) *view {
	return &view{selector: selector, policy: policy}
}

// latest has the newest snapshot: a rollcall.Delivery, in channels.
type latest interface{ Latest() *rollcall.Snapshot }

// follow takes in the latest snapshot of a subscription, and returns those refused by the
// policy that nobody has been told of yet, and the keys of those that are no longer.
func (v *view) follow(sub latest) (fresh []rollcall.Disallowed, mended []string) {
	v.mu.RLock()
	same := v.snap == sub.Latest()
	v.mu.RUnlock()
	if same {
		return nil, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	snap := sub.Latest()
	if snap == v.snap {
		return nil, nil
	}
	before := maps.Clone(v.refused)
	fresh = v.apply(snap)
	for key := range before {
		if _, still := v.refused[key]; !still && snap.Instance(key) != nil {
			mended = append(mended, key)
		}
	}
	return fresh, mended
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

// prepare does in advance, where there are many endpoints, what the state after one of n
// would take long to do: the index, and memory, of which a page that was never touched
// costs more than all that is written to it.
func (v *view) prepare(n int) {
	if n < large {
		return
	}
	v.mu.RLock()
	indexed := v.places != nil || v.odd
	v.mu.RUnlock()
	if !indexed {
		v.mu.Lock()
		v.index()
		v.mu.Unlock()
	}
	if v.room.Load() == nil {
		room := make([]grpcresolver.Endpoint, n+n/16+4)
		clear(room)
		v.room.Store(&room)
	}
}

// refusals returns the snapshot that is shown, and how many of its instances the policy
// refuses.
func (v *view) refusals() (snap *rollcall.Snapshot, refused int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.snap, len(v.refused)
}

func (v *view) apply(snap *rollcall.Snapshot) (fresh []rollcall.Disallowed) {
	if v.snap == nil || v.odd || len(snap.Retained()) > 0 {
		return v.build(snap)
	}
	v.index()
	var touched []string
	for _, c := range snap.Diff(v.snap) {
		if c.Old != nil && v.leave(c.Old) {
			touched = append(touched, c.Old.Addr)
		}
		if c.New != nil && v.come(c.New, &fresh) {
			touched = append(touched, c.New.Addr)
		}
	}
	v.settle(touched)
	if v.snap = snap; v.allDrain() {
		v.build(snap)
	} else {
		v.chosen.separateHashKeys()
	}
	return fresh
}

// build chooses anew, by all the rules.
func (v *view) build(snap *rollcall.Snapshot) (fresh []rollcall.Disallowed) {
	old, known, version := v.chosen, v.refused, v.version
	all, size := snap.Instances(), 0
	if v.selector.String() == "" {
		size = len(all) // most are taken
	}
	v.snap, v.serving, v.chosen = snap, 0, newChoice(snap.Prefix(), size)
	v.refused, v.places, v.crowds = make(map[string]rollcall.Disallowed), nil, make(map[string][]*rollcall.Instance)
	if len(snap.Retained()) > 0 || slices.ContainsFunc(all, func(inst *rollcall.Instance) bool { return snap.ID(inst) != inst.Addr }) {
		v.places = make(map[string]int, size)
	} // else no two have one address
	var touched []string
	for _, inst := range all {
		if v.come(inst, &fresh) {
			touched = append(touched, inst.Addr)
		}
	}
	v.settle(touched)
	gone := make(map[string][]*rollcall.Instance)
	for _, inst := range snap.Retained() {
		if v.crowd(inst.Addr) == nil && v.selector.Matches(inst) && v.policy.Check(inst.Addr) == nil {
			gone[inst.Addr] = append(gone[inst.Addr], inst)
		}
	}
	for _, crowd := range gone {
		v.chosen.push(best(crowd, true))
	}
	if len(v.chosen.instances) == 0 {
		for _, crowd := range v.crowds {
			v.chosen.push(best(crowd, true))
		}
	}
	v.chosen.separateHashKeys()
	v.chosen.traits = nil
	v.odd = len(snap.Retained()) > 0 || v.allDrain()
	if v.version = version; !v.chosen.looksLike(&old) {
		v.version++
	}
	return slices.DeleteFunc(fresh, func(r rollcall.Disallowed) bool { return r.Instance == known[r.Instance.Key].Instance })
}

func (v *view) allDrain() bool { return v.serving == 0 && len(v.crowds) > 0 }

// index finds the places, where that was put off.
func (v *view) index() {
	if v.places != nil {
		return
	}
	v.places = make(map[string]int, len(v.chosen.instances))
	for i, inst := range v.chosen.instances {
		v.places[inst.Addr] = i
	}
}

// come takes an instance in, and says whether it must be settled who stands for its address.
func (v *view) come(inst *rollcall.Instance, fresh *[]rollcall.Disallowed) bool {
	if !v.selector.Matches(inst) {
		return false
	}
	if err := v.policy.Check(inst.Addr); err != nil {
		v.refused[inst.Key] = rollcall.Disallowed{Instance: inst, Cause: err}
		*fresh = append(*fresh, v.refused[inst.Key])
		return false
	}
	crowd := v.crowd(inst.Addr)
	if !inst.Draining() {
		v.serving++
		if crowd == nil { // nearly always: at once, while it is in the processor's cache
			at := v.chosen.push(inst)
			if v.places != nil {
				v.places[inst.Addr] = at
			}
			v.version++
			return false
		}
	}
	v.crowds[inst.Addr] = append(crowd, inst)
	return true
}

// leave takes an instance out, and says whether it must be settled who stands for its address.
func (v *view) leave(inst *rollcall.Instance) bool {
	if !v.selector.Matches(inst) {
		return false
	}
	if _, ok := v.refused[inst.Key]; ok {
		delete(v.refused, inst.Key)
		return false
	}
	if !inst.Draining() {
		v.serving--
	}
	v.crowds[inst.Addr] = slices.DeleteFunc(v.crowd(inst.Addr), func(i *rollcall.Instance) bool { return i.Key == inst.Key })
	return true
}

// crowd returns who is taken at an address, nil where nobody was.
func (v *view) crowd(addr string) []*rollcall.Instance {
	if crowd, ok := v.crowds[addr]; ok {
		return crowd
	}
	if at, ok := v.places[addr]; ok {
		return []*rollcall.Instance{v.chosen.instances[at]}
	}
	return nil
}

// settle chooses who stands for some addresses.
func (v *view) settle(addrs []string) {
	for _, addr := range addrs {
		crowd, ok := v.crowds[addr]
		if !ok {
			continue // settled
		}
		inst := best(crowd, false)
		v.choose(addr, inst)
		if len(crowd) == 0 || len(crowd) == 1 && inst != nil {
			delete(v.crowds, addr)
		}
	}
}

// best returns which of several instances of one address stands for it: not a draining
// one, unless asked for; nil where there is none.
func best(crowd []*rollcall.Instance, draining bool) (best *rollcall.Instance) {
	for _, inst := range crowd {
		switch {
		case !draining && inst.Draining():
		case best == nil, best.CreateRevision < inst.CreateRevision, best.CreateRevision == inst.CreateRevision && inst.Key < best.Key:
			best = inst
		}
	}
	return best
}

// choose has an instance stand for an address, nil for none.
func (v *view) choose(addr string, inst *rollcall.Instance) {
	at, there := v.places[addr]
	var was *rollcall.Instance
	if there {
		was = v.chosen.instances[at]
	}
	switch {
	case looksSame(inst, was):
		if there {
			v.chosen.instances[at] = inst
		}
		return
	case inst == nil:
		v.places[v.chosen.drop(at)] = at
		delete(v.places, addr)
	case there:
		v.chosen.set(at, inst)
	default:
		v.places[addr] = v.chosen.push(inst)
	}
	v.version++
}
