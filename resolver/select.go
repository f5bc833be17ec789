// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"github.com/rollcall-grpc/rollcall"
)

// selected is what the rules make of a snapshot.
type selected struct {
	instances  []*rollcall.Instance // that a channel may call, one an address, in no order
	others     []*rollcall.Instance // that could be called too: they are draining, or share an address
	disallowed []rollcall.Disallowed
	fallback   bool           // instances are retained, or all draining
	index      map[string]int // by address: where instances has it; nil where it was not needed
}

// selectFrom applies the rules of selection to a snapshot. It is what candidates does
// change by change.
func selectFrom(snap *rollcall.Snapshot, selector rollcall.Selector, policy rollcall.AddressPolicy) (s selected) {
	if selector.String() == "" {
		s.instances = make([]*rollcall.Instance, 0, snap.Len())
	}
	for inst := range snap.All() {
		if !selector.Matches(inst) {
			continue
		}
		switch err := policy.Check(inst.Addr); {
		case err != nil:
			s.disallowed = append(s.disallowed, rollcall.Disallowed{Instance: inst, Cause: err})
		case inst.Draining():
			s.others = append(s.others, inst)
		default:
			s.instances = append(s.instances, inst)
		}
	}
	if len(snap.Retained()) > 0 {
		s.fallback = true
		s.addRetained(snap, selector, policy)
	}
	if len(s.instances) == 0 && len(s.others) > 0 { // better than none
		s.fallback = true
		s.instances, s.others = s.others, nil
	}
	s.keepNewest()
	return s
}

// addRetained adds the retained instances whose address no other instance has.
func (s *selected) addRetained(snap *rollcall.Snapshot, selector rollcall.Selector, policy rollcall.AddressPolicy) {
	present := make(map[string]bool)
	for _, instances := range [][]*rollcall.Instance{s.instances, s.others} {
		for _, inst := range instances {
			present[inst.Addr] = true
		}
	}
	for _, inst := range snap.Retained() {
		if !present[inst.Addr] && selector.Matches(inst) && policy.Check(inst.Addr) == nil {
			s.instances = append(s.instances, inst)
		}
	}
}

// keepNewest keeps one instance of each address.
func (s *selected) keepNewest() {
	if addressesAreIDs(s.instances) {
		return // no two have the same
	}
	s.index = make(map[string]int, len(s.instances))
	newest := s.instances[:0]
	for _, inst := range s.instances {
		switch i, ok := s.index[inst.Addr]; {
		case !ok:
			s.index[inst.Addr] = len(newest)
			newest = append(newest, inst)
		case newer(inst, newest[i]):
			s.others = append(s.others, newest[i])
			newest[i] = inst
		default:
			s.others = append(s.others, inst)
		}
	}
	s.instances = newest
}

func addressesAreIDs(instances []*rollcall.Instance) bool {
	for _, inst := range instances {
		if inst.ID() != inst.Addr {
			return false
		}
	}
	return true
}

// newer reports whether a rather than b stands for the address of both: it was created
// later or, at the same revision, has the lesser key.
func newer(a, b *rollcall.Instance) bool {
	return a.CreateRevision > b.CreateRevision || a.CreateRevision == b.CreateRevision && a.Key < b.Key
}
