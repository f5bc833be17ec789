// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// RegistrarOptions are the settings of a Registrar; the zero value works.
type RegistrarOptions struct {
	TTL    time.Duration // how long a dead process stays listed; default 10 s, at least 1 s, rounded up to seconds
	Policy AddressPolicy // what may be advertised; default HostPort
	Logger *slog.Logger  // default: the Directory's

	// NoOrigin leaves the metadata as it is given. Otherwise that of every endpoint, where it is an
	// object or null, gets "started" (when this process began, as 2006-01-02T15:04:05Z) and "host"
	// (the name of its machine), each unless it is given. Both are for people and monitoring only.
	NoOrigin bool
}

// Registrar keeps endpoints in etcd under one lease, for as long as it lives, whatever
// happens to etcd, the network or the process in between. Closing its client ends it. Closing
// its Directory does not: its keys are then looked up, at least every 5 s, instead of watched.
type Registrar struct {
	directory *Directory // watches the keys
	client    *clientv3.Client
	opts      RegistrarOptions
	origin    []metadataField // of the endpoints; nil for NoOrigin
	wake      chan struct{}   // capacity 1: a registration is dirty
	stop      func()          // cancels and joins run
	counts    registrarCounts

	// Owned by run.
	fenceRetry backoff.Backoff // of a fence that fails
	fenceDue   time.Time       // when it is tried again
	unread     []*Registration // whose values are still to be read in this round; see verifyKeys

	mu         sync.Mutex
	closed     bool
	regs       map[string]*Registration // by key
	dirty      []*Registration          // whose keys must be looked at
	batch      int                      // keys to send at once, as far as is known of the server's limit
	writeBound time.Duration            // of writes, but for creates
	lease      clientv3.LeaseID         // 0 while there is none. Invariant: only run changes it; shutdown does after run
	ttl        time.Duration            // of the lease, as etcd granted it
	leasedAt   time.Time                // when it did
	renewed    time.Time                // when the lease was granted, or as its TTL tells; only run uses it
	former     []clientv3.LeaseID       // leases before this one, the latest last; a restored etcd may have them again
	retired    []clientv3.LeaseID       // leases to be revoked, lest a create happen under them; see fence
	// unanswered has, by key, a lease for each create that was sent under it and never
	// answered. It may happen as long as etcd has the lease.
	unanswered map[string][]clientv3.LeaseID

	watches    map[string]*keyWatch // by name
	unwatched  []*Registration      // whose services are to be watched
	keyWatches int                  // how many of them are of one key

	deregistered map[string]bool   // keys deregistered under this lease; a restored etcd may have them again
	edits        map[string]values // by key: what an operator had edited when it was deregistered
	cleared      map[string]bool   // causes of refusals that have gone
	events       []event           // to be logged
}

// registrarCounts are cumulative; RegistrarStats describes them.
type registrarCounts struct {
	leases, renewals, leasesExpired, leasesUnrenewed, leasesReplaced, writes, writeFailures atomic.Uint64
}

// Logger returns the logger in use, never nil.
func (r *Registrar) Logger() *slog.Logger {
	if r.opts.Logger != nil {
		return r.opts.Logger
	}
	return r.directory.Logger()
}

// State is what is known of a registration.
type State struct {
	Phase    Phase
	Draining bool // it is marked as draining, by Drain or by an operator, or will be as soon as etcd can be reached
	Since    time.Time
	Lease    clientv3.LeaseID // 0: none
	TTL      time.Duration    // as etcd granted it
	Err      error            // why it is not in etcd (ErrSuperseded, etcd's own error), or why the last write failed
}

func (s State) closed() error {
	if s.Err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, s.Err)
	}
	return ErrClosed
}

// Registration is one endpoint that a Registrar keeps in etcd.
type Registration struct {
	registrar *Registrar
	service   string
	id        string
	key       string
	addr      string

	// Guarded by registrar.mu.
	desired  desired
	observed observed
	watch    *keyWatch // of the key; nil once it is removed, or if the Directory is closed

	dirty     bool            // it is in Registrar.dirty
	retry     backoff.Backoff // of a key that etcd refuses
	notBefore time.Time       // until when it is left alone then

	state   State
	changed chan struct{} // closed when state changes; nil while nobody waits for that
}

// keyWatch is a watch that covers the keys of some registrations: one key, or a whole
// service where there are many.
type keyWatch struct {
	name string // the key, or the service's prefix
	sub  *Subscription

	// Guarded by Registrar.mu.
	regs   int                    // how many use it
	last   *Snapshot              // last observed
	unseen map[*Registration]bool // written, and not yet seen in a snapshot
}

// event is what happened to a registration, and to how many others.
type event struct {
	level  slog.Level
	text   string
	key    string
	cause  error
	others int
}

// dirtyLocked has a registration's key looked at.
func (g *Registration) dirtyLocked() {
	if !g.dirty {
		g.dirty = true
		g.registrar.dirty = append(g.registrar.dirty, g)
	}
}

// stateChangeLocked returns a channel that closes when the state changes.
func (g *Registration) stateChangeLocked() <-chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

// setLocked records a state and wakes those who wait. Closed is the last one.
func (g *Registration) setLocked(phase Phase, err error) {
	if g.state.Phase == Closed {
		return
	}
	s := State{Phase: phase, Since: g.state.Since, Err: err, Draining: statusOf(g.observed.target(g.desired.value)) == StatusDraining}
	if g.state.Phase != phase {
		s.Since = time.Now()
	}
	if phase == Registered || phase == Draining {
		s.Lease, s.TTL = g.observed.lease(), g.registrar.ttl
	}
	g.state = s
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}
