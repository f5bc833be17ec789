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
		for service, _ := rollcall.SplitKey(k.Key); service != ""; service, _ = rollcall.SplitKey(service) {
			scopes[service] = &scope{service: service}
		}
	}
	if snap.Service() != "" {
		scopes[snap.Service()] = &scope{service: snap.Service()}
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

// Nested returns the services within the one of a snapshot, as a list of all services shows them.
func Nested(snap *rollcall.Snapshot) []string {
	whole := scope{service: snap.Service(), instances: slices.Collect(snap.All())}
	return nested(whole.service, whole.keys())
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
