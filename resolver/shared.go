// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"sync"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

// sharedSelection is the selection that all channels of a builder with the same service and
// selector copy their states from.
type sharedSelection struct {
	channels int // guarded by builder.mu

	mu           sync.RWMutex
	candidates   candidates
	preallocated preallocated
}

func newSharedSelection(selector rollcall.Selector, policy rollcall.AddressPolicy) *sharedSelection {
	return &sharedSelection{candidates: candidates{selector: selector, policy: policy}}
}

// source has the latest snapshot: a rollcall.Delivery.
type source interface{ Latest() *rollcall.Snapshot }

// follow applies the latest snapshot of a subscription, unless another channel has done so,
// and returns what no channel has been told of yet.
func (s *sharedSelection) follow(sub source) (d disallowedChanges) {
	s.mu.RLock()
	same := s.candidates.snap == sub.Latest()
	s.mu.RUnlock()
	if same {
		return d
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if snap := sub.Latest(); snap != s.candidates.snap {
		d = s.candidates.apply(snap)
	}
	return d
}

// state returns the selection in a channel's order, unless its version is the one that the
// channel has, and the version.
func (s *sharedSelection) state(o order, has int) (state []grpcresolver.Endpoint, version int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.candidates.version != has {
		state = o.arrange(&s.candidates.selection, s.preallocated.take())
	}
	return state, s.candidates.version
}

// large is the number of endpoints whose state is larger than a page of memory.
const large = 128

// prepare does in advance what the state after one of n endpoints would have to wait for,
// where they are many: it builds the index and gets memory.
func (s *sharedSelection) prepare(n int) {
	if n < large {
		return
	}
	s.mu.RLock()
	indexed := s.candidates.selection.index != nil || s.candidates.fallback
	s.mu.RUnlock()
	if !indexed {
		s.mu.Lock()
		s.candidates.selection.buildIndex()
		s.mu.Unlock()
	}
	s.preallocated.refill(n)
}

// emptiness returns why the snapshot that was followed last has nothing to call.
func (s *sharedSelection) emptiness() emptiness {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := &s.candidates
	e := emptiness{snap: c.snap, selector: c.selector.String(), disallowed: len(c.disallowed), gone: c.gone}
	for _, d := range c.disallowed {
		if e.first.Instance == nil || d.Instance.Key < e.first.Instance.Key {
			e.first = d
		}
	}
	return e
}
