// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import "slices"

// Selection is what a client may call of a snapshot, by the rules that all outputs share.
type Selection struct {
	Callable   []*Instance  // one an address, in no order
	Others     []*Instance  // that could be called too: they are draining, or share an address
	Disallowed []Disallowed // by the address policy, sorted by key
	// LastResort says that Callable has instances which are retained, or draining since there
	// are no others.
	LastResort bool
}

// Select selects from the instances that a selector matches and a policy allows. Those that are
// draining are not called, unless all of them are; of several at one address the newest is.
// Retained instances are called where no other has their address.
func (s *Snapshot) Select(selector Selector, policy AddressPolicy) (sel Selection) {
	if selector.String() == "" {
		sel.Callable = make([]*Instance, 0, len(s.instances))
	}
	for _, inst := range s.instances {
		if !selector.Matches(inst) {
			continue
		}
		switch err := policy.Check(inst.Addr); {
		case err != nil:
			sel.Disallowed = append(sel.Disallowed, Disallowed{Instance: inst, Cause: err})
		case inst.Draining():
			sel.Others = append(sel.Others, inst)
		default:
			sel.Callable = append(sel.Callable, inst)
		}
	}
	if len(s.retained) > 0 {
		sel.LastResort = true
		sel.addRetained(s.retained, selector, policy)
	}
	if len(sel.Callable) == 0 && len(sel.Others) > 0 { // better than none
		sel.LastResort = true
		sel.Callable, sel.Others = sel.Others, nil
	}
	sel.keepNewest()
	return sel
}

// addRetained adds the retained instances whose address no other instance has.
func (sel *Selection) addRetained(retained []*Instance, selector Selector, policy AddressPolicy) {
	present := make(map[string]bool)
	for _, instances := range [][]*Instance{sel.Callable, sel.Others} {
		for _, inst := range instances {
			present[inst.Addr] = true
		}
	}
	for _, inst := range retained {
		if !present[inst.Addr] && selector.Matches(inst) && policy.Check(inst.Addr) == nil {
			sel.Callable = append(sel.Callable, inst)
		}
	}
}

// keepNewest keeps one instance of each address.
func (sel *Selection) keepNewest() {
	if differInAddress(sel.Callable) {
		return
	}
	index := make(map[string]int, len(sel.Callable))
	newest := sel.Callable[:0]
	for _, inst := range sel.Callable {
		switch i, ok := index[inst.Addr]; {
		case !ok:
			index[inst.Addr] = len(newest)
			newest = append(newest, inst)
		case inst.NewerThan(newest[i]):
			sel.Others = append(sel.Others, newest[i])
			newest[i] = inst
		default:
			sel.Others = append(sel.Others, inst)
		}
	}
	sel.Callable = newest
}

// differInAddress reports whether no two have the same address, as is nearly always so. If ids are addresses
// it is seen at a glance.
func differInAddress(instances []*Instance) bool {
	if !slices.ContainsFunc(instances, func(inst *Instance) bool { return inst.ID() != inst.Addr }) {
		return true
	}
	addrs := make(map[string]struct{}, len(instances))
	for _, inst := range instances {
		addrs[inst.Addr] = struct{}{}
	}
	return len(addrs) == len(instances)
}
