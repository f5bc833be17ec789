// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// subsets is how many different subsets of a service there are. Clients with the same one share
// their responses.
const subsets = 256

// subsetFor returns which subset a client gets. A client's address counts beside the id of its
// node, since many clients may have been given the same file with their node in it.
func subsetFor(nodeID, host string) uint16 {
	return uint16(xxhash.Sum64String(nodeID+"\x00"+host) % subsets)
}

// subsetOf returns so many of some endpoints that are not draining, and those that are draining
// where they would be among them otherwise, in the same order. It takes those whose hashes
// together with the subset are the least (rendezvous hashing, as gRFC A68 has it), so that one
// that comes or goes changes a subset by one.
func subsetOf(endpoints []endpoint, serving int, subset uint16) []endpoint {
	type ranked struct {
		hash  uint64
		index int
	}
	order := make([]ranked, len(endpoints))
	for i, ep := range endpoints {
		b := binary.BigEndian.AppendUint16(make([]byte, 0, 32), subset)
		b, _ = ep.addr.AppendBinary(b)
		order[i] = ranked{xxhash.Sum64(b), i}
	}
	slices.SortFunc(order, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.index, b.index)) })
	taken := make([]bool, len(endpoints))
	n := 0
	for _, o := range order {
		if serving == 0 {
			break
		}
		if taken[o.index] = true; !endpoints[o.index].draining {
			serving--
		}
		n++
	}
	part := make([]endpoint, 0, n)
	for i, ep := range endpoints {
		if taken[i] {
			part = append(part, ep)
		}
	}
	return part
}
