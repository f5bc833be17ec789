// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

const (
	silenceLimit  = 10 * time.Second // a watch stream that was silent for so long is probed
	connectLimit  = time.Second      // connecting that takes longer counts as down
	verifyPeriod  = time.Second      // least time between two verifications of the epoch
	verifyKeys    = 10               // keys that are tried until one may be read
	recheckPeriod = time.Second      // a status that is younger needs no recheck
	replacePeriod = time.Second      // least time between two replacements of the watch stream
	explainPeriod = 5 * time.Second  // how often a broken connection is asked for its error
)

// Options are what a Monitor needs. All fields are required.
type Options struct {
	Client *clientv3.Client
	Logger *slog.Logger
	// ProbeKeys returns at most n keys to probe with: readable reports whether this client
	// is known to have the right to read them. There may be none.
	ProbeKeys func(n int) (keys []string, readable bool)
	// LastKnown describes the endpoints that are known in spite of an outage, for the log; "" if
	// there are none.
	LastKnown func() string
}

// Monitor watches over the connection of one client.
type Monitor struct {
	opts Options
	wake chan struct{} // capacity 1

	mu        sync.Mutex
	outage    outageLog // outlives Run
	running   int       // calls of Run under way: two for a moment, perhaps
	status    Status
	changed   chan struct{} // closed and replaced when status changes
	recovered chan struct{} // closed and replaced when etcd is back, or a new epoch begins
	checked   chan struct{} // closed and replaced when a check has ended

	conn         connectivity.State
	connSince    time.Time
	lastMessage  time.Time       // on the watch stream
	streamProven bool            // the watch stream has delivered a message since it was opened
	proxy        bool            // the connection leads to a proxy of etcd's
	proxyKnown   bool            // whether it does has been found out
	epochSuspect bool            // the epoch must be verified
	epochChecked time.Time       // when it last was
	recheck      bool            // somebody lost a watch, or a list failed
	lastCheck    time.Time       // when a check last ended
	nextCheck    time.Time       // when a check is due again after a failed one
	floor        Floor           // of the present epoch
	seen         Seen            // by the last message that told more than was known
	termFellAt   time.Time       // since when responses have a lower raft term; zero: they have not
	replacedAt   time.Time       // when a watch stream was last replaced
	replaced     []uint64        // streams that were replaced and have not been ended
	metadata     context.Context // has what tells the watches of a stream from others; nil: of none yet
	metadataOf   uint64          // the stream
}

// Status is what a Monitor has found out.
type Status struct {
	Stream uint64  // watch stream in use; watches on another one are to be opened anew
	Epoch  int     // counts from 1; what was read in an older one is to be listed again
	Verify uint64  // grows when everybody has to compare what they have with etcd
	Outage *Outage // nil while etcd can be reached
}

// Outage tells since when etcd cannot be reached, and why.
type Outage struct {
	Since time.Time
	Cause error
}

// Floor is what the next linearizable response must not fall below in one epoch.
type Floor struct {
	Revision int64
	Term     uint64
	Epoch    int
}

// New returns a Monitor, which does nothing until Run.
func New(opts Options) *Monitor {
	return &Monitor{opts: opts, wake: make(chan struct{}, 1), status: Status{Epoch: 1},
		changed: make(chan struct{}), recovered: make(chan struct{}), checked: make(chan struct{}), conn: connectivity.Idle}
}

// streamID keeps this process's watch streams its own: clientv3 shares a gRPC stream among
// watches with equal metadata, other libraries' included.
var streamID = rand.Text()

// StreamContext returns ctx for a watch on the given stream. A leader is required.
func (m *Monitor) StreamContext(ctx context.Context, stream uint64) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.metadata == nil || m.metadataOf != stream {
		id := fmt.Sprintf("%s-%p-%d", streamID, m, stream)
		m.metadata, m.metadataOf = clientv3.WithRequireLeader(metadata.AppendToOutgoingContext(context.Background(), "rollcall-stream", id)), stream
	}
	return streamContext{ctx, m.metadata}
}

// streamContext is a context with the metadata of another one, which all watches on a stream
// share.
type streamContext struct {
	context.Context
	metadata context.Context
}

func (c streamContext) Value(key any) any {
	if value := c.metadata.Value(key); value != nil {
		return value
	}
	return c.Context.Value(key)
}

// Status returns the status and a channel that closes when it changes.
func (m *Monitor) Status() (Status, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, m.changed
}

// Recovered returns a channel that closes when waiting longer makes no sense: etcd is back,
// or a new epoch begins.
func (m *Monitor) Recovered() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recovered
}

func (m *Monitor) changeLocked(change func(s *Status)) {
	was := m.status
	change(&m.status)
	backoff.Renew(&m.changed)
	if was.Epoch != m.status.Epoch || was.Outage != nil && m.status.Outage == nil {
		backoff.Renew(&m.recovered)
	}
}

// Reset drops what may be out of date because Run has not run for a while.
func (m *Monitor) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn, m.lastMessage, m.termFellAt = connectivity.Idle, time.Now(), time.Time{}
	m.recheck, m.nextCheck, m.proxyKnown = false, time.Time{}, false
}

// Recheck has the connection checked, because a watch was lost or a list failed, and waits
// for the outcome. A status that is less than a second old will do.
func (m *Monitor) Recheck(ctx context.Context) {
	m.mu.Lock()
	checked := m.checked
	known := m.running == 0 || m.status.Outage != nil || time.Since(m.lastCheck) < recheckPeriod
	m.recheck = m.recheck || !known
	m.mu.Unlock()
	if known {
		return
	}
	backoff.Wake(m.wake)
	select {
	case <-checked:
	case <-ctx.Done():
	}
}

// ReplaceStream gives up a watch stream, unless that was done already or another one was
// replaced a moment ago.
func (m *Monitor) ReplaceStream(stream uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); stream == m.status.Stream && now.Sub(m.replacedAt) >= replacePeriod {
		m.replacedAt, m.streamProven = now, false
		m.replaced = append(m.replaced, stream)
		m.changeLocked(func(s *Status) { s.Stream++ })
	}
}
