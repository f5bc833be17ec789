// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"slices"

	"github.com/rollcall-grpc/rollcall"
)

// candidates keeps the selection of one service and selector up to date, change by change.
// Candidates are the instances that the selector matches and the address policy allows.
// Each address with a candidate that is not draining has one instance in the selection: the
// newest of these. While instances are retained or all candidates are draining, Snapshot.Select
// makes the selection instead, at every change.
type candidates struct {
	selector rollcall.Selector
	policy   rollcall.AddressPolicy

	snap       *rollcall.Snapshot // that the rest is a function of; nil at first
	gone       departed           // how the last of the selection went
	disallowed map[string]rollcall.Disallowed
	selection  selection
	fallback   bool // the selection is a fallback, and several is not maintained
	version    int  // of the selection: grows when a channel could see a difference

	// Invariant: several has, by address, the candidates of each address that has more than
	// one, or whose only one is draining. See BenchmarkStateJoined.
	several map[string][]*rollcall.Instance
}

// disallowedChanges is what the address policy made of a snapshot's changes.
type disallowedChanges struct {
	fresh  []rollcall.Disallowed // written since
	mended []string              // keys that are there still, and allowed now
}

// apply follows a snapshot, and remembers how the last candidates went.
func (c *candidates) apply(snap *rollcall.Snapshot) disallowedChanges {
	old, had := c.snap, len(c.selection.instances) > 0
	d := c.follow(snap)
	switch has := len(c.selection.instances) > 0; {
	case has:
		c.gone = departed{}
	case had:
		c.gone = departedSince(old, snap, c.selector, c.policy)
	}
	return d
}

func (c *candidates) follow(snap *rollcall.Snapshot) (d disallowedChanges) {
	if c.snap == nil || c.fallback || len(snap.Retained()) > 0 {
		return c.replace(snap)
	}
	changes := snap.Diff(c.snap)
	c.snap = snap
	if len(changes) == 0 { // of instances, which are all that counts here
		return d
	}
	c.selection.buildIndex()
	var touched []string
	for _, change := range changes {
		_, was := c.disallowed[change.Key]
		if change.Old != nil && c.remove(change.Old, change.New) {
			touched = append(touched, change.Old.Addr)
		}
		if change.New != nil && c.add(change.New) {
			touched = append(touched, change.New.Addr)
		}
		switch now, is := c.disallowed[change.Key]; {
		case is:
			d.fresh = append(d.fresh, now)
		case was && change.New != nil:
			d.mended = append(d.mended, change.Key)
		}
	}
	for _, addr := range touched {
		c.elect(addr)
	}
	if len(c.selection.instances) == 0 && len(c.several) > 0 { // all are draining
		c.replace(snap)
	} else {
		c.selection.separateHashKeys()
	}
	return d
}

// replace makes the selection anew.
func (c *candidates) replace(snap *rollcall.Snapshot) (d disallowedChanges) {
	s := snap.Select(c.selector, c.policy)
	before := c.selection
	c.snap, c.fallback, c.selection = snap, s.LastResort, newSelection(s.Callable)
	if !c.selection.looksLike(&before) {
		c.version++
	}
	c.several = make(map[string][]*rollcall.Instance)
	if !c.fallback {
		if len(s.Others) > 0 {
			c.selection.buildIndex() // some may share the address of a selected one
		}
		for _, inst := range s.Others {
			c.several[inst.Addr] = append(c.at(inst.Addr), inst)
		}
	}
	known := c.disallowed
	c.disallowed = make(map[string]rollcall.Disallowed, len(s.Disallowed))
	for _, now := range s.Disallowed {
		c.disallowed[now.Instance.Key] = now
		if now.Instance != known[now.Instance.Key].Instance {
			d.fresh = append(d.fresh, now)
		}
	}
	for key := range known {
		if _, still := c.disallowed[key]; !still && snap.Instance(key) != nil {
			d.mended = append(d.mended, key)
		}
	}
	return d
}

// add takes in an instance, and reports whether its address needs an election.
func (c *candidates) add(inst *rollcall.Instance) bool {
	if !c.selector.Matches(inst) {
		return false
	}
	if err := c.policy.Check(inst.Addr); err != nil {
		c.disallowed[inst.Key] = rollcall.Disallowed{Instance: inst, Cause: err}
		return false
	}
	all := c.at(inst.Addr)
	if all == nil && !inst.Draining() { // nearly always; see BenchmarkStateJoined
		c.selection.set(inst.Addr, inst)
		c.version++
		return false
	}
	c.several[inst.Addr] = append(all, inst)
	return true
}

// remove takes out an instance, whose key holds next now, nil for none, and reports whether its address
// needs an election.
func (c *candidates) remove(inst, next *rollcall.Instance) bool {
	if !c.selector.Matches(inst) {
		return false
	}
	if _, ok := c.disallowed[inst.Key]; ok {
		delete(c.disallowed, inst.Key)
		return false
	}
	if _, ok := c.several[inst.Addr]; !ok && (next == nil || next.Addr != inst.Addr) { // the only candidate; see the scenario restart of module bench
		c.selection.set(inst.Addr, nil)
		c.version++
		return false
	}
	c.several[inst.Addr] = slices.DeleteFunc(c.at(inst.Addr), func(i *rollcall.Instance) bool { return i.Key == inst.Key })
	return true
}

// at returns the candidates of an address.
func (c *candidates) at(addr string) []*rollcall.Instance {
	if all, ok := c.several[addr]; ok {
		return all
	}
	if inst := c.selection.at(addr); inst != nil {
		return []*rollcall.Instance{inst}
	}
	return nil
}

// elect selects one of the candidates of an address. It may be called again for the same.
func (c *candidates) elect(addr string) {
	all := c.at(addr)
	var best *rollcall.Instance
	for _, inst := range all {
		if !inst.Draining() && (best == nil || inst.NewerThan(best)) {
			best = inst
		}
	}
	if !looksSame(best, c.selection.at(addr)) {
		c.version++
	}
	c.selection.set(addr, best)
	if len(all) == 0 || len(all) == 1 && best != nil {
		delete(c.several, addr)
	}
}
