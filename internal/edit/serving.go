// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// LastServingError is returned where a drain would leave services without a serving endpoint.
type LastServingError struct {
	Services []string
	Within   string // the service that the drain is of, where these are others within it; else ""
}

func (e *LastServingError) Error() string {
	within := ""
	if e.Within != "" {
		within = fmt.Sprintf(", within %q as rollcall ls lists them,", e.Within)
	}
	return fmt.Sprintf("no other endpoint of %s %s%s is serving: clients would go on to call what is drained, rather than nothing; "+
		"start or undrain another one first", plural.Form(len(e.Services), "service", "services"), quoted(e.Services, len(e.Services)), within)
}

// KeepServing is a Check: it refuses to drain the last serving endpoints of a service, or of one within it, with a
// *LastServingError, and relies on endpoints that go on serving.
func KeepServing(snap *rollcall.Snapshot, keys []Key) (relied []*rollcall.Instance, err error) {
	var last []string
	for _, s := range scopesOf(snap, keys) {
		after := TakingCalls(slices.Values(s.instances), keys)
		switch {
		case len(after) > 0:
			relied = relyOnOne(relied, after)
		case len(TakingCalls(slices.Values(s.instances), nil)) > 0:
			last = append(last, s.service)
		}
	}
	if len(last) == 0 {
		return relied, nil
	}
	whole := snap.Service()
	if slices.Contains(last, whole) { // which tells all
		return nil, &LastServingError{Services: []string{whole}}
	}
	slices.Sort(last)
	return nil, &LastServingError{last, whole}
}

// KeepOne is a Check: it refuses to remove the last endpoints of a service, or of one within it, or the last that are
// serving, with an *EmptiesError, and relies on some that stay.
func KeepOne(snap *rollcall.Snapshot, keys []Key) (relied []*rollcall.Instance, err error) {
	var refused *EmptiesError // of the outermost service
	var also []string         // services that were refused before
	for _, s := range scopesOf(snap, keys) {
		remaining, e := s.remaining(keys)
		if e == nil {
			relied = relyOnOne(relied, remaining)
			continue
		}
		if refused != nil {
			also = append(also, refused.Service)
		}
		refused = e
	}
	if refused == nil {
		return relied, nil
	}
	if refused.Service != snap.Service() || refused.Stay > 0 { // else it tells all
		slices.Sort(also)
		refused.Also = also
	}
	return nil, refused
}

// remaining returns instances of which one must stay if some keys are removed, and why these must not be.
func (s *scope) remaining(removed []Key) ([]*rollcall.Instance, *EmptiesError) {
	if serving := TakingCalls(slices.Values(s.instances), removed); len(serving) > 0 {
		return serving, nil
	}
	goes := keySet(removed)
	var stay []*rollcall.Instance
	for _, inst := range s.instances {
		if !goes[inst.Key] {
			stay = append(stay, inst)
		}
	}
	switch serving := TakingCalls(slices.Values(s.instances), nil); {
	case len(stay) == 0 && len(s.instances) > 0: // else there are only values that are no endpoints
		return nil, &EmptiesError{Service: s.service, Endpoints: len(s.instances), Nested: nested(s.service, s.keys())}
	case len(serving) > 0:
		return nil, &EmptiesError{Service: s.service, Endpoints: len(serving), Stay: len(stay)}
	}
	return stay, nil
}

// relyOnOne adds one of some candidates to the instances that are relied on, unless one is among them.
func relyOnOne(relied, candidates []*rollcall.Instance) []*rollcall.Instance {
	if len(candidates) == 0 || slices.ContainsFunc(candidates, func(inst *rollcall.Instance) bool { return slices.Contains(relied, inst) }) {
		return relied
	}
	return append(relied, candidates[0])
}

// TakingCalls returns those of the instances that clients send new calls to, one an address and sorted by
// key, if some keys drain. There are none if all drain: clients then call them nevertheless.
func TakingCalls(instances iter.Seq[*rollcall.Instance], drained []Key) []*rollcall.Instance {
	drains := keySet(drained)
	return newest(instances, func(inst *rollcall.Instance) bool { return !drains[inst.Key] && !inst.Draining() })
}

func keySet(keys []Key) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, k := range keys {
		set[k.Key] = true
	}
	return set
}

// newest returns the instances that clients could call, of those that are wanted: one an address and sorted by key.
func newest(instances iter.Seq[*rollcall.Instance], want func(*rollcall.Instance) bool) []*rollcall.Instance {
	newest := make(map[string]*rollcall.Instance)
	for inst := range instances {
		if !want(inst) || rollcall.HostPort(inst.Addr) != nil {
			continue
		}
		if other := newest[inst.Addr]; other == nil || inst.NewerThan(other) {
			newest[inst.Addr] = inst
		}
	}
	all := make([]*rollcall.Instance, 0, len(newest))
	for _, inst := range newest {
		all = append(all, inst)
	}
	slices.SortFunc(all, func(a, b *rollcall.Instance) int { return strings.Compare(a.Key, b.Key) })
	return all
}
