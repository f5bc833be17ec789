// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"google.golang.org/grpc/connectivity"
	grpcresolver "google.golang.org/grpc/resolver"
)

// member is one endpoint.
type member struct {
	locality locality
	weight   float64
	addrs    int
	failing  map[string]bool // its addresses that cannot be connected to
}

// capacity is the sum of the weights of the members of a locality.
type capacity struct{ all, healthy float64 }

func (m *member) healthy() bool { return len(m.failing) < m.addrs }

func (m *member) setFailing(addr string, failing bool) {
	if !failing {
		delete(m.failing, addr)
		return
	}
	if m.failing == nil {
		m.failing = make(map[string]bool)
	}
	m.failing[addr] = true
}

// observeLocked records a SubConn's state, and reports whether a capacity has changed. An
// address that failed is failing until it is connected, or given up.
func (p *policy) observeLocked(addrs []grpcresolver.Address, s connectivity.State) (changed bool) {
	if s == connectivity.Idle || s == connectivity.Connecting {
		return false
	}
	for _, addr := range addrs {
		m := p.members[addr.Addr]
		if m == nil {
			continue
		}
		before := m.healthy()
		m.setFailing(addr.Addr, s == connectivity.TransientFailure)
		if now := m.healthy(); now != before {
			changed = true
			if now {
				p.capacities[m.locality].healthy += m.weight
			} else {
				p.capacities[m.locality].healthy -= m.weight
			}
		}
	}
	return changed
}
