// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-grpc/rollcall"
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

// EmptiesError is returned where a change would leave a service without an endpoint.
type EmptiesError struct {
	Service   string
	Endpoints int // that it has now
}

func (e *EmptiesError) Error() string {
	what := "all " + strconv.Itoa(e.Endpoints) + " endpoints"
	if e.Endpoints == 1 {
		what = "the only endpoint"
	}
	return fmt.Sprintf("this removes %s of service %q: calls to it will fail", what, e.Service)
}

// KeepOne is a Check: it refuses to remove the last endpoints of a service, with an *EmptiesError, and relies on
// one that stays.
func KeepOne(snap *rollcall.Snapshot, keys []Key) (relied *rollcall.Instance, err error) {
	removed := make(map[string]bool, len(keys))
	for _, k := range keys {
		removed[k.Key] = true
	}
	for inst := range snap.All() {
		if !removed[inst.Key] {
			return inst, nil
		}
	}
	if snap.Len() == 0 { // only values that are no endpoints
		return nil, nil
	}
	return nil, &EmptiesError{snap.Service(), snap.Len()}
}

// TakingCalls returns the instances that clients send new calls to, one an address and sorted by
// key, if some keys drain. There are none if all drain: clients then call them nevertheless.
func TakingCalls(snap *rollcall.Snapshot, drained []Key) []*rollcall.Instance {
	drains := make(map[string]bool, len(drained))
	for _, k := range drained {
		drains[k.Key] = true
	}
	newest := make(map[string]*rollcall.Instance)
	for inst := range snap.All() {
		if drains[inst.Key] || inst.Draining() || rollcall.HostPort(inst.Addr) != nil {
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
