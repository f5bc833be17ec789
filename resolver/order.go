// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"hash/maphash"
	"math/rand/v2"
	"slices"

	grpcresolver "google.golang.org/grpc/resolver"
)

// order shuffles the endpoints of a channel, in the same way as long as it lives, so that
// pick_first stays with its server, and in another way for each channel, so that pick_first
// does not send them all to one server, nor on to one when that is gone.
type order uint64

func newOrder() order { return order(rand.Uint64()) }

// shuffledPrefix is the number of endpoints at the front that are shuffled. The others
// follow in no particular order: only pick_first cares, and it seldom gets further. To order
// all of them would cost more than the rest of a state; see BenchmarkState.
const shuffledPrefix = 8

var hashSeed = maphash.MakeSeed()

func hashOf(key string) uint64 { return maphash.String(hashSeed, key) }

// rank spreads hashes evenly, and differently for each channel. The steps are those that
// end MurmurHash3.
func (o order) rank(hash uint64) uint64 {
	h := hash ^ uint64(o)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// arrange returns the endpoints of a selection, those of the least ranks first. They are in
// memory where that is large enough, which is then no longer the caller's.
func (o order) arrange(s *selection, memory []grpcresolver.Endpoint) []grpcresolver.Endpoint {
	type ranked struct {
		rank uint64
		at   int
	}
	first := make([]ranked, 0, shuffledPrefix+1)
	for i, hash := range s.hashes {
		rank := o.rank(hash)
		if len(first) == shuffledPrefix && rank >= first[shuffledPrefix-1].rank {
			continue
		}
		at := len(first)
		for at > 0 && first[at-1].rank > rank {
			at--
		}
		first = slices.Insert(first, at, ranked{rank, i})
		first = first[:min(len(first), shuffledPrefix)]
	}
	arranged := append(memory[:0], s.endpoints...)
	for i, r := range first {
		arranged[i], arranged[r.at] = arranged[r.at], arranged[i]
		for j := range first[i+1:] {
			if later := &first[i+1+j]; later.at == i {
				later.at = r.at
			}
		}
	}
	return arranged
}
