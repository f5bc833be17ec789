// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Endpoint is what an instance says of itself.
type Endpoint struct {
	ID       string // last part of the key; default: Addr
	Addr     string // where clients reach it; see RegistrarOptions.Policy
	Metadata any    // anything that encoding/json writes; an object to use Attributes
}

// Phase is where a registration stands.
type Phase int

const (
	Registering Phase = iota // not yet in etcd
	Registered               // in etcd, under a lease that is kept alive
	Lost                     // was in etcd; State.Err says why it is not, and it is being put back
	Draining                 // in etcd, marked so that clients send nothing new
	Closed                   // taken out for good
)

func (p Phase) String() string {
	names := [...]string{"registering", "registered", "lost", "draining", "closed"}
	if p < 0 || int(p) >= len(names) {
		return fmt.Sprintf("Phase(%d)", int(p))
	}
	return names[p]
}

// State is what is known of a registration.
type State struct {
	Phase Phase
	Since time.Time
	Lease clientv3.LeaseID // 0: none
	TTL   time.Duration    // as etcd granted it
	Err   error            // why it is not in etcd (ErrSuperseded, etcd's own error), or why the last write failed
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
	key       string
	addr      string
	sub       *Subscription // nil where the Registrar checks in batches

	// Guarded by registrar.mu.
	value    []byte // what the key should hold, an operator's edit included
	write    bool   // value was set here and is not in etcd yet
	edit     edit   // while write: what makes value of that which stands in etcd
	standing bool   // stood in etcd under our lease when it was last looked at
	gone     bool   // Close was called
	claimed  bool   // was written once: from then on a successor is respected
	dirty    bool   // must be looked at
	revision int64  // at which the key was written when it was last looked at
	history  int    // of the snapshot that was last compared; revisions of another say nothing
	state    State
	changed  chan struct{}
}

// Key is the whole key in etcd.
func (g *Registration) Key() string { return g.key }

// Service is the service that the endpoint belongs to.
func (g *Registration) Service() string { return g.service }

// Addr is the advertised address.
func (g *Registration) Addr() string { return g.addr }

// State returns the state and a channel that closes when it changes: for a readiness
// probe, "am I registered?" is State().Phase == Registered.
func (g *Registration) State() (State, <-chan struct{}) {
	g.registrar.mu.Lock()
	defer g.registrar.mu.Unlock()
	return g.state, g.changed
}

// Wait waits until the endpoint is in etcd as it should be. It fails with the
// context, whose error then wraps why, or with ErrClosed.
func (g *Registration) Wait(ctx context.Context) error {
	return g.await(ctx, "register", func() bool { return g.claimed && !g.write && g.state.Err == nil && !g.gone })
}

// Update replaces the metadata: same key, same lease, one event. It returns once etcd
// has it; if the context ends first, it is written as soon as etcd can be had. Bad
// metadata is an *InputError.
func (g *Registration) Update(ctx context.Context, metadata any) error {
	value, err := Encode(g.addr, metadata)
	if err != nil {
		return err
	}
	return g.set(ctx, "update", func([]byte) ([]byte, error) { return value, nil })
}

// Drain marks the endpoint ("status": "draining" in its metadata), so that clients
// finish what they have and send nothing new. Metadata that is no object cannot carry
// the mark: an *InputError.
func (g *Registration) Drain(ctx context.Context) error {
	return g.set(ctx, "drain", drained)
}

// set changes the value and waits until etcd has it.
func (g *Registration) set(ctx context.Context, verb string, change edit) error {
	if err := g.change(verb, change); err != nil {
		return err
	}
	notify(g.registrar.wake)
	return g.await(ctx, verb, func() bool { return !g.write && g.state.Err == nil })
}

// change edits the value as it is known here, and remembers the edit: what stands in
// etcd by the time it is written may be an operator's.
func (g *Registration) change(verb string, change edit) error {
	g.registrar.mu.Lock()
	defer g.registrar.mu.Unlock()
	if g.gone || g.state.Phase == Closed {
		return fmt.Errorf("%s %q: %w", verb, g.key, g.state.closed())
	}
	value, err := change(g.value)
	if err != nil {
		return err
	}
	if before := g.edit; before != nil {
		after := change
		change = func(value []byte) ([]byte, error) {
			value, err := before(value)
			if err != nil {
				return nil, err
			}
			return after(value)
		}
	}
	g.value, g.edit, g.write, g.dirty = value, change, true, true
	return nil
}

// Close takes the endpoint out: it is marked as draining, so that watchers can tell
// that it went on purpose, and deleted unless a successor has the key. It returns when
// that is done; if the context ends first it goes on behind, and the Registrar's Close
// or the end of the lease finishes it.
func (g *Registration) Close(ctx context.Context) error {
	g.leave()
	return g.await(ctx, "deregister", func() bool { return g.state.Phase == Closed && g.state.Err == nil })
}

// leave has the endpoint taken out. Without a lease there is nothing in etcd.
func (g *Registration) leave() {
	r := g.registrar
	r.mu.Lock()
	if !g.gone && g.state.Phase != Closed {
		g.gone, g.dirty = true, true
		if r.lease == 0 {
			r.finishLocked(g, nil)
		}
	}
	sub := r.unwatchLocked(g)
	r.mu.Unlock()
	if sub != nil {
		sub.Close()
	}
	notify(r.wake)
}

// await waits for a condition on what registrar.mu guards.
func (g *Registration) await(ctx context.Context, verb string, met func() bool) error {
	r := g.registrar
	for {
		r.mu.Lock()
		ok, state, changed := met(), g.state, g.changed
		r.mu.Unlock()
		switch {
		case ok:
			return nil
		case state.Phase == Closed:
			return fmt.Errorf("%s %q: %w", verb, g.key, state.closed())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if state.Err != nil {
				return fmt.Errorf("%s %q: %w (%w)", verb, g.key, context.Cause(ctx), state.Err)
			}
			return fmt.Errorf("%s %q: %w", verb, g.key, context.Cause(ctx))
		}
	}
}

// setLocked records a state and tells those who wait. Closed is the last one.
func (g *Registration) setLocked(phase Phase, err error) {
	if g.state.Phase == Closed {
		return
	}
	if g.state.Phase != phase {
		g.state.Since = time.Now()
	}
	g.state.Phase, g.state.Err = phase, err
	g.state.Lease, g.state.TTL = g.registrar.lease, g.registrar.granted
	if phase == Closed {
		g.state.Lease, g.state.TTL = 0, 0
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// missedLocked records that the endpoint is not in etcd, for now.
func (g *Registration) missedLocked(err error) {
	phase := Lost
	if !g.claimed {
		phase = Registering
	}
	g.setLocked(phase, err)
}

// unwrittenLocked records that a write failed: the endpoint may stand in etcd as it was.
func (g *Registration) unwrittenLocked(err error) {
	switch {
	case !g.standing:
		g.missedLocked(err)
	case g.state.Phase == Draining:
		g.setLocked(Draining, err)
	default:
		g.setLocked(Registered, err)
	}
}

// edit makes a new value of one that stands.
type edit func(value []byte) ([]byte, error)

// drained returns an endpoint's value with its status set to draining.
func drained(value []byte) ([]byte, error) {
	addr, metadata, err := decodeValue(value)
	if err != nil {
		return nil, err
	}
	if metadata, err = WithField(metadata, "status", StatusDraining); err != nil {
		return nil, err
	}
	return Encode(addr, metadata)
}
