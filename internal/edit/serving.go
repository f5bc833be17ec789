// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// LastServingError is returned where a drain would leave a service without a serving endpoint.
type LastServingError struct{ Service string }

func (e *LastServingError) Error() string {
	return fmt.Sprintf("no other endpoint of service %q is serving: clients would go on to call what is drained, rather than nothing; "+
		"start or undrain another one first", e.Service)
}

// KeepServing is a Check: it refuses to drain the last serving endpoints of a service, with a
// *LastServingError, and relies on one that goes on serving.
func KeepServing(snap *rollcall.Snapshot, keys []Key) (relied *rollcall.Instance, err error) {
	if len(TakingCalls(snap, nil)) == 0 {
		return nil, nil
	}
	after := TakingCalls(snap, keys)
	if len(after) == 0 {
		return nil, &LastServingError{snap.Service()}
	}
	return after[0], nil
}

// EmptiesError is returned where a change would leave a service without an endpoint, or without one that is serving.
type EmptiesError struct {
	Service   string
	Endpoints int      // that it has now, with those of services within it; where some stay, those that are serving
	Stay      int      // that are not serving
	Nested    []string // services within it, which lose theirs as well
	To        string   // the service that they move to; "": they are removed
}

// Emptied returns the error for a change that removes all keys of a service.
func Emptied(snap *rollcall.Snapshot) *EmptiesError {
	var keys []string
	for inst := range snap.All() {
		keys = append(keys, inst.Key)
	}
	return &EmptiesError{Service: snap.Service(), Endpoints: snap.Len(), Nested: nested(snap.Service(), keys)}
}

// nested returns the services, other than that which was asked for, that a list of all services shows keys under.
func nested(service string, keys []string) (services []string) {
	for _, key := range keys {
		if inner, _ := rollcall.SplitKey(key); inner != service {
			services = append(services, inner)
		}
	}
	slices.Sort(services)
	return slices.Compact(services)
}

// maxNested bounds how many nested services are named.
const maxNested = 5

func (e *EmptiesError) Error() string {
	if e.Stay > 0 {
		return fmt.Sprintf("this removes %s of service %q: %s draining or cannot be called",
			plural.Count(e.Endpoints, "serving endpoint, the last", "serving endpoints, the last"), e.Service,
			plural.Count(e.Stay, "endpoint that stays is", "endpoints that stay are"))
	}
	verb, what, among, to, lost := "removes", fmt.Sprintf("all endpoints (%d)", e.Endpoints), "among them all", "", "it"
	if e.Endpoints == 1 {
		what, among = "the only endpoint", "which is that"
	}
	what += fmt.Sprintf(" of service %q", e.Service)
	if n := len(e.Nested); n > 0 {
		lost = "them"
		what += fmt.Sprintf(", %s of", among)
		for _, service := range e.Nested[:min(n, maxNested)] {
			what += " " + strconv.Quote(service) + ","
		}
		what = strings.TrimSuffix(what, ",")
		if n > maxNested {
			what += fmt.Sprintf(" and %d more", n-maxNested)
		}
	}
	if e.To != "" {
		verb, to, lost = "moves", fmt.Sprintf(" to %q", e.To), "the old name"
	}
	return fmt.Sprintf("this %s %s%s: calls to %s will fail", verb, what, to, lost)
}

// KeepOne is a Check: it refuses to remove the last endpoints of a service, or the last that are serving, with an
// *EmptiesError, and relies on one that stays.
func KeepOne(snap *rollcall.Snapshot, keys []Key) (relied *rollcall.Instance, err error) {
	if serving := TakingCalls(snap, keys); len(serving) > 0 {
		return serving[0], nil
	}
	removed := make(map[string]bool, len(keys))
	for _, k := range keys {
		removed[k.Key] = true
	}
	var stay []*rollcall.Instance
	for inst := range snap.All() {
		if !removed[inst.Key] {
			stay = append(stay, inst)
		}
	}
	switch serving := TakingCalls(snap, nil); {
	case snap.Len() == 0: // only values that are no endpoints
		return nil, nil
	case len(stay) == 0:
		return nil, Emptied(snap)
	case len(serving) > 0:
		return nil, &EmptiesError{Service: snap.Service(), Endpoints: len(serving), Stay: len(stay)}
	}
	return stay[0], nil
}

// TakingCalls returns the instances that clients send new calls to, one an address and sorted by
// key, if some keys drain. There are none if all drain: clients then call them nevertheless.
func TakingCalls(snap *rollcall.Snapshot, drained []Key) []*rollcall.Instance {
	drains := make(map[string]bool, len(drained))
	for _, k := range drained {
		drains[k.Key] = true
	}
	return newest(snap.All(), func(inst *rollcall.Instance) bool { return !drains[inst.Key] && !inst.Draining() })
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
