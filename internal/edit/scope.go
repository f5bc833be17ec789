// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// scope is a service that keys are written of: the one that a change is made to, or one within it.
type scope struct {
	service   string
	instances []*rollcall.Instance // all under its name
	written   []Key                // of these
	own       int                  // written keys that a list of all services shows under it
}

func (s *scope) keys() (all []string) {
	for _, inst := range s.instances {
		all = append(all, inst.Key)
	}
	return all
}

// scopesOf returns the service of a snapshot, if it is of one, and the services within it that some of the keys are
// under, as a list of all services shows them. A service comes after those within it.
func scopesOf(snap *rollcall.Snapshot, keys []Key) []*scope {
	scopes := make(map[string]*scope)
	for _, k := range keys {
		inner, _ := rollcall.SplitKey(k.Key)
		for service := inner; service != ""; service, _ = rollcall.SplitKey(service) {
			s := scopes[service]
			if s == nil {
				s = &scope{service: service}
				scopes[service] = s
			}
			s.written = append(s.written, k)
			if service == inner {
				s.own++
			}
		}
	}
	if whole := snap.Service(); whole != "" && scopes[whole] == nil {
		scopes[whole] = &scope{service: whole}
	}
	listed := map[string]bool{snap.Service(): true}
	for inst := range snap.All() {
		service, _ := rollcall.SplitKey(inst.Key)
		listed[service] = true
		for ; service != ""; service, _ = rollcall.SplitKey(service) {
			if s := scopes[service]; s != nil {
				s.instances = append(s.instances, inst)
			}
		}
	}
	maps.DeleteFunc(scopes, func(service string, _ *scope) bool { return !listed[service] })
	return slices.SortedFunc(maps.Values(scopes), func(a, b *scope) int {
		return cmp.Or(cmp.Compare(len(b.service), len(a.service)), strings.Compare(b.service, a.service))
	})
}

// Part is what a change to endpoints of many services does to one of them.
type Part struct {
	Service   string
	Instances []*rollcall.Instance // all under its name, which its clients call
	Keys      []Key                // of these, that are written
	Own       int                  // of Keys, that a list of all services shows under it: others are of services within it
}

// Nested returns the services within the one of a part, as a list of all services shows them.
func (p Part) Nested() []string {
	s := scope{service: p.Service, instances: p.Instances}
	return nested(s.service, s.keys())
}

// Parts returns the services of a snapshot of all that have some of the keys, sorted by name.
func Parts(snap *rollcall.Snapshot, keys []Key) (parts []Part) {
	for _, s := range scopesOf(snap, keys) {
		if s.own > 0 {
			parts = append(parts, Part{s.service, s.instances, s.written, s.own})
		}
	}
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(a.Service, b.Service) })
	return parts
}

// Nested returns the services within the one of a snapshot, as a list of all services shows them.
func Nested(snap *rollcall.Snapshot) []string {
	return Part{Service: snap.Service(), Instances: slices.Collect(snap.All())}.Nested()
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
