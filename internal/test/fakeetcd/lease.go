// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// firstLease keeps lease IDs unlike revisions, and the same in every run.
	firstLease = 0x7a110000
	maxLease   = 9_000_000_000 // seconds, as etcd's
)

// lease is the clock of a lease; its keys are in the state.
type lease struct {
	ttl     int64 // seconds
	expires time.Time
	timer   *time.Timer
}

// LeaseInfo is a lease as a test sees it.
type LeaseInfo struct {
	TTL       int64 // granted, in seconds
	Remaining time.Duration
	Keys      []string // sorted
}

// Leases returns all live leases.
func (s *Store) Leases() map[clientv3.LeaseID]LeaseInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[clientv3.LeaseID]LeaseInfo, len(s.leases))
	for id, l := range s.leases {
		out[clientv3.LeaseID(id)] = LeaseInfo{TTL: l.ttl, Remaining: time.Until(l.expires), Keys: s.state.leaseKeys(id)}
	}
	return out
}

// ExpireLease ends a lease as if its time were over, and reports whether it was
// alive.
func (s *Store) ExpireLease(id clientv3.LeaseID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revokeLocked(int64(id)) == nil
}

// grantLocked makes a lease. An ID of 0 asks for any.
func (s *Store) grantLocked(id, ttl int64) (int64, int64, error) {
	if ttl > maxLease {
		return 0, 0, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	if id == 0 {
		s.granted++
		id = firstLease + s.granted
	}
	if _, ok := s.leases[id]; ok {
		return 0, 0, rpctypes.ErrGRPCLeaseExist
	}
	ttl = max(ttl, minLeaseTTL)
	s.state.attached[id] = make(map[string]struct{})
	s.startLeaseLocked(id, ttl)
	return id, ttl, nil
}

func (s *Store) startLeaseLocked(id, ttl int64) {
	l := &lease{ttl: ttl}
	term := time.Duration(ttl) * time.Second
	l.expires = time.Now().Add(term)
	l.timer = time.AfterFunc(term, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		// It may have been renewed, or be another store's by now.
		if s.leases[id] == l && !time.Now().Before(l.expires) {
			_ = s.revokeLocked(id)
		}
	})
	s.leases[id] = l
}

// renewLocked returns the TTL, or 0 if there is no such lease.
func (s *Store) renewLocked(id int64) int64 {
	l, ok := s.leases[id]
	if !ok {
		return 0
	}
	term := time.Duration(l.ttl) * time.Second
	l.expires = time.Now().Add(term)
	l.timer.Reset(term)
	return l.ttl
}

// revokeLocked ends a lease and deletes its keys, all in one revision.
func (s *Store) revokeLocked(id int64) error {
	l, ok := s.leases[id]
	if !ok {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	l.timer.Stop()
	delete(s.leases, id)
	s.writeLocked(func(w *write) { w.revoke(id) })
	return nil
}

// dropLeasesLocked forgets all leases; their keys stay.
func (s *Store) dropLeasesLocked() {
	for _, l := range s.leases {
		l.timer.Stop()
	}
	clear(s.leases)
}

func (s *Store) leaseIDsLocked() []int64 {
	return slices.Sorted(maps.Keys(s.leases))
}
