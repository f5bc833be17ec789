// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// ClusterID is in every header, also after the data were lost, as with
	// members that start again with the same configuration.
	ClusterID = 0xc1a5
	// MemberID is in every header.
	MemberID = 0x3e3b

	firstTerm   = 2
	maxTxnOps   = 128
	maxRequest  = 3 << 19 // 1.5 MiB
	minLeaseTTL = 2       // seconds: ceil(1.5 default election time-outs)
)

// Store is the data of a cluster. See [New].
type Store struct {
	mu       sync.Mutex
	state    *state
	leases   map[int64]*lease
	granted  int64 // number of leases ever granted
	term     uint64
	maxOps   int
	maxBytes int
	conns    map[*Conn]struct{}
}

// Snapshot is the data of a Store at one moment, including past revisions.
type Snapshot struct {
	state *state
	ttls  map[int64]int64
}

// New returns an empty store at revision 1, with etcd's default limits.
func New() *Store {
	return &Store{
		state:    newState(),
		leases:   make(map[int64]*lease),
		term:     firstTerm,
		maxOps:   maxTxnOps,
		maxBytes: maxRequest,
		conns:    make(map[*Conn]struct{}),
	}
}

// Connect returns a client of the store with faults of its own. The context is
// that of the client, as in clientv3.NewCtxClient.
func (s *Store) Connect(ctx context.Context) *Conn {
	c := newConn(ctx, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return c
}

// Close closes all Conns and stops the clocks of all leases.
func (s *Store) Close() {
	s.mu.Lock()
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.dropLeasesLocked()
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// Revision returns the latest revision.
func (s *Store) Revision() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.revision
}

// KeyValues returns copies of all keys, sorted.
func (s *Store) KeyValues() []*mvccpb.KeyValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cloneKVs(s.state.span([]byte{0}, []byte{0}, s.state.revision))
}

// Values returns all keys with their values.
func (s *Store) Values() map[string]string {
	values := make(map[string]string)
	for _, kv := range s.KeyValues() {
		values[string(kv.Key)] = string(kv.Value)
	}
	return values
}

// Watches returns the number of open watches of all Conns.
func (s *Store) Watches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.conns {
		n += c.watchesLocked()
	}
	return n
}

// Put writes without a client and returns the revision.
func (s *Store) Put(key, value string) int64 {
	return s.write(func(w *write) {
		w.put(&etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(value)})
	})
}

// Delete deletes without a client and returns the revision.
func (s *Store) Delete(key string) int64 {
	return s.write(func(w *write) {
		w.remove(&etcdserverpb.DeleteRangeRequest{Key: []byte(key)})
	})
}

// Compact drops the revisions before revision. As in etcd it fails if the revision is in the
// future or already compacted.
func (s *Store) Compact(revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return clientv3.ContextError(context.Background(), s.state.compact(revision))
}

// SetTerm sets the raft term of headers; a new store has 2.
func (s *Store) SetTerm(term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = term
}

// SetLimits sets the greatest number of operations in a transaction and bytes in
// a request; etcd's defaults are 128 and 1.5 MiB.
func (s *Store) SetLimits(ops, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxOps, s.maxBytes = ops, bytes
}

// Snapshot returns a copy of the data.
func (s *Store) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := &Snapshot{state: s.state.clone(), ttls: make(map[int64]int64)}
	for id, l := range s.leases {
		snap.ttls[id] = l.ttl
	}
	return snap
}

// Restore replaces the data by those of a snapshot, as if members restarted with it: all streams
// break, leases have their full TTL again, the term stays. A bump above 0 is added to the
// revision, and all before is compacted (etcdutl's --bump-revision with --mark-compacted).
func (s *Store) Restore(snap *Snapshot, bump int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLeasesLocked()
	s.state = snap.state.clone()
	if bump > 0 {
		s.state.bump(bump)
	}
	for id, ttl := range snap.ttls {
		s.startLeaseLocked(id, ttl)
	}
	s.breakAllLocked()
}

// Wipe loses all data: revision 1, no keys, no leases, the first term. All
// streams break; watches open again and wait for the revision they had reached.
func (s *Store) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLeasesLocked()
	s.state = newState()
	s.term = firstTerm
	s.breakAllLocked()
}

func (s *Store) breakAllLocked() {
	for c := range s.conns {
		c.failStreamsLocked(errBroken, anyStream)
	}
}

// write applies a change, notifies the watches, and returns the revision.
func (s *Store) write(change func(w *write)) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeLocked(change)
	return s.state.revision
}

func (s *Store) writeLocked(change func(w *write)) {
	w := s.state.begin()
	change(w)
	w.commit()
	for c := range s.conns {
		c.catchUpLocked()
	}
}
