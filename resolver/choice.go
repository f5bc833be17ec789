// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"strings"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/rollcall-grpc/rollcall"
)

// choice is what a channel may call, in no order. States share what the endpoints point to.
type choice struct {
	prefix    string // of all keys
	endpoints []grpcresolver.Endpoint
	hashes    []uint64             // of their keys
	instances []*rollcall.Instance // the latest writes; an endpoint may carry an earlier one that looked the same
	traits    traits               // of many that come at once
	hashKeys  bool                 // one of the instances has, or had, a "hash_key"
}

func newChoice(prefix string, size int) choice {
	return choice{
		prefix:    prefix,
		endpoints: make([]grpcresolver.Endpoint, 0, size),
		hashes:    make([]uint64, 0, size),
		instances: make([]*rollcall.Instance, 0, size),
		traits:    make(traits),
	}
}

// push returns where it has put an instance.
func (c *choice) push(inst *rollcall.Instance) (i int) {
	ep := c.endpointOf(inst, []grpcresolver.Address{{Addr: inst.Addr}})
	c.endpoints, c.hashes, c.instances = append(c.endpoints, ep), append(c.hashes, hashOf(inst.Key)), append(c.instances, inst)
	return len(c.endpoints) - 1
}

// set puts an instance where another one of its address is.
func (c *choice) set(i int, inst *rollcall.Instance) {
	c.endpoints[i], c.hashes[i], c.instances[i] = c.endpointOf(inst, c.endpoints[i].Addresses), hashOf(inst.Key), inst
}

func (c *choice) endpointOf(inst *rollcall.Instance, addrs []grpcresolver.Address) grpcresolver.Endpoint {
	is := c.traits.of(inst)
	c.hashKeys = c.hashKeys || is.hashKey != ""
	return endpointOf(inst, addrs, is.weighing, c.hashKey(inst, is))
}

// hashKey returns the hash key that an instance asks for: its "hash_key", or else its id.
func (c *choice) hashKey(inst *rollcall.Instance, is trait) string {
	if is.hashKey != "" {
		return is.hashKey
	}
	return strings.TrimPrefix(inst.Key, c.prefix)
}

// separateHashKeys makes the hash keys of all endpoints different: of those with the same,
// ring_hash calls only one. The least id of those that ask for a hash key gets it, and the
// others get it with their id appended. That depends on nothing but who is there, so that
// all clients agree and an endpoint that comes back gets its old hash key.
func (c *choice) separateHashKeys() {
	if !c.hashKeys {
		return // ids differ
	}
	traits := make(traits)
	owners := make(map[string]*rollcall.Instance, len(c.instances))
	for _, inst := range c.instances {
		hashKey := c.hashKey(inst, traits.of(inst))
		if owner := owners[hashKey]; owner == nil || inst.Key < owner.Key {
			owners[hashKey] = inst
		}
	}
	for i, inst := range c.instances {
		is := traits.of(inst)
		hashKey := c.hashKey(inst, is)
		if owners[hashKey] != inst {
			hashKey += "\x00" + strings.TrimPrefix(inst.Key, c.prefix)
		}
		if ep := c.endpoints[i]; hashKeyOf(ep) != hashKey {
			c.endpoints[i] = endpointOf(inst, ep.Addresses, is.weighing, hashKey)
		}
	}
}

// hashKeyOf returns where ring_hash puts an endpoint.
func hashKeyOf(ep grpcresolver.Endpoint) string {
	if hashKey := ringhash.HashKey(ep); hashKey != "" {
		return hashKey
	}
	return ep.Addresses[0].Addr
}

// drop fills the gap that an instance leaves with the last one, and returns the address
// of that.
func (c *choice) drop(i int) (moved string) {
	last := len(c.endpoints) - 1
	moved = c.instances[last].Addr
	c.endpoints[i], c.hashes[i], c.instances[i] = c.endpoints[last], c.hashes[last], c.instances[last]
	c.endpoints[last], c.instances[last] = grpcresolver.Endpoint{}, nil // let go
	c.endpoints, c.hashes, c.instances = c.endpoints[:last], c.hashes[:last], c.instances[:last]
	return moved
}

// looksLike reports whether a channel could see no difference between two choices.
func (c *choice) looksLike(o *choice) bool {
	if len(c.instances) != len(o.instances) {
		return false
	}
	others := make(map[string]*rollcall.Instance, len(o.instances))
	for _, inst := range o.instances {
		others[inst.Key] = inst
	}
	for _, inst := range c.instances {
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
