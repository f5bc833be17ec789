// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Floor returns the floor for the next linearizable response; call it before sending.
func (m *Monitor) Floor() Floor {
	m.mu.Lock()
	defer m.mu.Unlock()
	floor := m.floor
	floor.Epoch = m.status.Epoch
	return floor
}

// ObserveResponse takes in a linearizable response, with the floor from before it was asked
// for, and returns the epoch that it belongs to: a new one if it fell below. A response that
// was under way when a new epoch began tells nothing about that one. A lower raft term
// alone must last for a second: a follower that caught up by a snapshot may have one for a
// moment.
func (m *Monitor) ObserveResponse(revision int64, term uint64, before Floor) (epoch int) {
	epoch, ended := m.observeResponse(revision, term, before)
	if ended {
		m.opts.Logger.Warn("etcd lost its data or was restored from a backup; following what it holds now",
			"revision", revision, "term", term, "lastRevision", before.Revision, "lastTerm", before.Term)
	}
	return epoch
}

// observeResponse does what ObserveResponse does, and reports whether the epoch of before has
// ended with this response.
func (m *Monitor) observeResponse(revision int64, term uint64, before Floor) (epoch int, ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before.Epoch != m.status.Epoch {
		return before.Epoch, false
	}
	if term >= before.Term {
		m.termFellAt = time.Time{}
	} else {
		m.suspectEpochLocked() // until it has risen, or stayed
		if m.termFellAt.IsZero() {
			m.termFellAt = time.Now()
		}
	}
	if revision < before.Revision || !m.termFellAt.IsZero() && time.Since(m.termFellAt) >= verifyPeriod {
		m.floor, m.termFellAt, ended = Floor{}, time.Time{}, true
		m.changeLocked(func(s *Status) { s.Epoch++ })
	}
	m.floor.Revision, m.floor.Term = max(m.floor.Revision, revision), max(m.floor.Term, term)
	return m.status.Epoch, ended
}

// ObserveRevision takes in a revision that a member has reached in an epoch: that of an
// event, or of a response that is not linearizable.
func (m *Monitor) ObserveRevision(revision int64, epoch int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch == m.status.Epoch {
		m.floor.Revision = max(m.floor.Revision, revision)
	}
}

// observeMessage takes in the header of a message on the watch stream of a generation. It comes from one
// member and is not linearizable: a revision below the floor is only a hint.
func (m *Monitor) observeMessage(generation uint64, header *pb.ResponseHeader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if generation == m.watches.Generation() {
		m.lastMessage, m.streamProven = time.Now(), true
	}
	switch revision := header.GetRevision(); {
	case header.GetClusterId() == 0 || revision == 0:
	case revision < m.floor.Revision:
		m.suspectEpochLocked()
	default:
		m.seen = Seen{Cluster: header.GetClusterId(), Revision: revision, At: time.Now()}
	}
}

// Seen is where the store stood, as a member told last.
type Seen struct {
	Cluster  uint64
	Revision int64     // 0: no member has told yet
	At       time.Time // when it did
}

// Seen returns what the last message on a watch stream told of the store, of a member that was
// not behind.
func (m *Monitor) Seen() Seen {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// SuspectEpoch has the epoch verified soon.
func (m *Monitor) SuspectEpoch() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.suspectEpochLocked()
}

func (m *Monitor) suspectEpochLocked() {
	m.epochSuspect = true
	backoff.Wake(m.wake)
}

// verifyEpoch asks etcd, linearizably, for its revision. A key that may not be read any more
// cannot tell, and another one is tried; the watch of its range may live on, and reports the
// refusal to its owner.
func (m *Monitor) verifyEpoch(ctx context.Context) error {
	keys, readable := m.opts.ProbeKeys(verifyKeys)
	if !readable {
		return nil
	}
	for _, key := range keys {
		before := m.Floor()
		resp, err := etcdkv.Get(clientv3.WithRequireLeader(ctx), m.opts.Client, key)
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			continue
		}
		if err == nil {
			m.ObserveResponse(resp.Header.Revision, resp.Header.RaftTerm, before)
			m.mu.Lock()
			m.epochChecked = time.Now()
			m.mu.Unlock()
		}
		return err
	}
	return nil
}
