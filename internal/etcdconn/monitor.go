// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
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
	opts    Options
	watches *etcdkv.Watches
	wake    chan struct{} // capacity 1

	mu        sync.Mutex
	outage    outageLog // outlives a run
	running   int       // runs under way: two for a moment, perhaps
	status    Status
	changed   chan struct{} // closed and replaced when status changes
	recovered chan struct{} // closed and replaced when etcd is back, or a new epoch begins
	checked   chan struct{} // closed and replaced when a check has ended

	conn         connectivity.State
	connSince    time.Time
	lastMessage  time.Time // on the watch stream
	streamProven bool      // a stream of this generation has delivered a message
	proxy        bool      // the connection leads to a proxy of etcd's
	proxyKnown   bool      // whether it does has been found out
	epochSuspect bool      // the epoch must be verified
	epochChecked time.Time // when it last was
	reconnected  bool      // and not checked since, be it in vain: who logs in at each try burdens etcd
	recheck      bool      // somebody lost a watch, or a list failed
	lastCheck    time.Time // when a check last ended
	nextCheck    time.Time // when a check is due again after a failed one
	floor        Floor     // of the present epoch
	seen         Seen      // by the last message of a member that was not behind
	termFellAt   time.Time // since when responses have a lower raft term; zero: they have not
	replacedAt   time.Time // when a watch stream was last replaced
}

// Status is what a Monitor has found out.
type Status struct {
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

// New returns a Monitor, which does nothing until Start.
func New(opts Options) *Monitor {
	m := &Monitor{opts: opts, wake: make(chan struct{}, 1), status: Status{Epoch: 1},
		changed: make(chan struct{}), recovered: make(chan struct{}), checked: make(chan struct{}), conn: connectivity.Idle}
	m.watches = etcdkv.NewWatches(opts.Client, m.observeMessage)
	return m
}

// Watch watches a range on the watch stream, from a revision on.
func (m *Monitor) Watch(keys etcdkv.KeyRange, revision int64) *etcdkv.Watch {
	return m.watches.Open(keys, revision)
}

// HoldStream keeps the watch stream open between watches, until release.
func (m *Monitor) HoldStream() (release func()) { return m.watches.Hold() }

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

// ReplaceStream gives up the watch stream, unless that was done already or another one was
// replaced a moment ago.
func (m *Monitor) ReplaceStream(generation uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); generation == m.watches.Generation() && now.Sub(m.replacedAt) >= replacePeriod {
		m.replacedAt, m.streamProven = now, false
		m.watches.Replace(generation)
	}
}
