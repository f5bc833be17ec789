// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"cmp"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

// selection is what a channel may call, one instance an address, in no order. It is dense,
// so that a state is a copy of endpoints; states share what these point to.
type selection struct {
	endpoints []grpcresolver.Endpoint
	hashes    []uint64             // of their keys
	instances []*rollcall.Instance // the latest writes; an endpoint may carry an earlier one that looked the same
	index     map[string]int       // by address; nil until buildIndex
	hashKeys  bool                 // an instance has, or had, a "hash_key"
}

// newSelection returns a selection of instances, which becomes its own.
func newSelection(instances []*rollcall.Instance) selection {
	s := selection{
		endpoints: make([]grpcresolver.Endpoint, len(instances)),
		hashes:    make([]uint64, len(instances)),
		instances: instances,
	}
	addrs := make([]grpcresolver.Address, len(instances)) // one allocation; see BenchmarkState
	for i, inst := range instances {
		addrs[i].Addr = inst.Addr
		s.endpoints[i] = s.endpoint(inst, addrs[i:i+1:i+1])
		s.hashes[i] = hashOf(inst.Key)
	}
	s.separateHashKeys()
	return s
}

func (s *selection) buildIndex() {
	if s.index != nil {
		return
	}
	s.index = make(map[string]int, len(s.instances))
	for i, inst := range s.instances {
		s.index[inst.Addr] = i
	}
}

// at returns the instance of an address, nil where there is none. It needs the index.
func (s *selection) at(addr string) *rollcall.Instance {
	if i, ok := s.index[addr]; ok {
		return s.instances[i]
	}
	return nil
}

// set has an instance stand for an address, nil for none. It needs the index.
func (s *selection) set(addr string, inst *rollcall.Instance) {
	i, there := s.index[addr]
	switch {
	case there && inst == nil:
		s.drop(i)
	case there && looksSame(inst, s.instances[i]):
		s.instances[i] = inst
	case there:
		s.endpoints[i], s.hashes[i], s.instances[i] = s.endpoint(inst, s.endpoints[i].Addresses), hashOf(inst.Key), inst
	case inst != nil:
		s.index[addr] = len(s.instances)
		s.endpoints = append(s.endpoints, s.endpoint(inst, []grpcresolver.Address{{Addr: addr}}))
		s.hashes, s.instances = append(s.hashes, hashOf(inst.Key)), append(s.instances, inst)
	}
}

// drop fills the gap that an instance leaves with the last one.
func (s *selection) drop(i int) {
	last := len(s.instances) - 1
	s.index[s.instances[last].Addr] = i
	delete(s.index, s.endpoints[i].Addresses[0].Addr)
	s.endpoints[i], s.hashes[i], s.instances[i] = s.endpoints[last], s.hashes[last], s.instances[last]
	s.endpoints[last], s.instances[last] = grpcresolver.Endpoint{}, nil // for the garbage collector
	s.endpoints, s.hashes, s.instances = s.endpoints[:last], s.hashes[:last], s.instances[:last]
}

func (s *selection) endpoint(inst *rollcall.Instance, addrs []grpcresolver.Address) grpcresolver.Endpoint {
	weight, hashKey := inst.WeightAndHashKey()
	s.hashKeys = s.hashKeys || hashKey != ""
	return newEndpoint(inst, addrs, weight, cmp.Or(hashKey, inst.ID()))
}

// separateHashKeys makes the hash keys of all endpoints different: of those with the same,
// ring_hash calls only one. The least id of those that ask for a hash key gets it, and the
// others get it with their id appended. That depends only on the instances, so that all
// clients agree and an endpoint that comes back gets its old hash key.
func (s *selection) separateHashKeys() {
	if !s.hashKeys {
		return // ids differ
	}
	owners := make(map[string]*rollcall.Instance, len(s.instances))
	weights, hashKeys := make([]uint32, len(s.instances)), make([]string, len(s.instances))
	for i, inst := range s.instances {
		weight, hashKey := inst.WeightAndHashKey()
		weights[i], hashKeys[i] = weight, cmp.Or(hashKey, inst.ID())
		if owner := owners[hashKeys[i]]; owner == nil || inst.Key < owner.Key {
			owners[hashKeys[i]] = inst
		}
	}
	for i, inst := range s.instances {
		hashKey := hashKeys[i]
		if owners[hashKey] != inst {
			hashKey += "\x00" + inst.ID()
		}
		if ep := s.endpoints[i]; hashKeyOf(ep) != hashKey {
			s.endpoints[i] = newEndpoint(inst, ep.Addresses, weights[i], hashKey)
		}
	}
}

// looksLike reports whether a channel could see no difference between two selections.
func (s *selection) looksLike(o *selection) bool {
	if len(s.instances) != len(o.instances) {
		return false
	}
	others := make(map[string]*rollcall.Instance, len(o.instances))
	for _, inst := range o.instances {
		others[inst.Key] = inst
	}
	for _, inst := range s.instances {
		if !looksSame(inst, others[inst.Key]) {
			return false
		}
	}
	return true
}

// looksSame reports whether a channel could see no difference between two instances of one
// address, or none.
func looksSame(a, b *rollcall.Instance) bool {
	return a == b || a != nil && b != nil && a.Key == b.Key && a.SameValue(b)
}
