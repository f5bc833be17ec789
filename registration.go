// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
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

// phaseOf returns the phase of an endpoint whose value stands in etcd.
func phaseOf(value []byte) Phase {
	if _, metadata, err := decodeValue(value); err == nil && (&Instance{Metadata: metadata}).Draining() {
		return Draining
	}
	return Registered
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

	// Guarded by registrar.mu.
	watch *keyWatch // of the key; nil once it is closed

	// Three values of the key, of which the second and the third differ by what an operator
	// has edited.
	base  []byte // what the program wanted when the key was last written
	wants []byte // what the program wants now
	value []byte // what the key holds, as far as is known
	// sent are the writes since the last one that etcd confirmed, the latest last. One of them
	// that turns up in etcd is no operator's edit.
	sent []sentValue
	// status is what an operator has set, and stays until an operator takes it back. "": nothing.
	status string

	claimed  bool             // was written once: from then on a successor is respected
	standing clientv3.LeaseID // lease that the key stood under when etcd was last asked; 0: none of ours
	revision int64            // at which the key was written then
	gone     bool             // Close was called
	deleted  bool             // and etcd has no key of this Registrar's any more
	taken    bool             // but one of a successor's

	dirty     bool            // must be looked at
	retry     backoff.Backoff // of a key that etcd refuses
	notBefore time.Time       // until when it is left alone then

	state   State
	changed chan struct{}
}

// sentValue is a value that was written to a key, with what the program wanted then.
type sentValue struct{ value, wants []byte }

// mostSent is how many writes of a registration without an answer are remembered.
const mostSent = 16

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
	return g.await(ctx, "register", func() bool { return !g.pendingLocked() && g.state.Err == nil && !g.gone })
}

// Update replaces the metadata: same key, same lease, one event. It returns once etcd
// has it; if the context ends first, it is written as soon as etcd can be had. Bad
// metadata is an *InputError. Fields that an operator has edited and that are the same as
// before the update stay as the operator left them; a status that an operator has set
// stays in any case until an operator takes it back.
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

// set changes what the program wants and waits until etcd has it.
func (g *Registration) set(ctx context.Context, verb string, change func(value []byte) ([]byte, error)) error {
	if err := g.change(verb, change); err != nil {
		return err
	}
	notify(g.registrar.wake)
	return g.await(ctx, verb, func() bool { return !g.pendingLocked() && g.state.Err == nil })
}

func (g *Registration) change(verb string, change func(value []byte) ([]byte, error)) error {
	g.registrar.mu.Lock()
	defer g.registrar.mu.Unlock()
	if g.gone || g.state.Phase == Closed {
		return fmt.Errorf("%s %q: %w", verb, g.key, g.state.closed())
	}
	wants, err := change(g.wants)
	if err != nil {
		return err
	}
	g.wants, g.dirty, g.notBefore = wants, true, time.Time{}
	return nil
}

// pendingLocked reports whether etcd may hold something else than the program wants.
func (g *Registration) pendingLocked() bool {
	return !g.claimed || len(g.sent) > 0 || !bytes.Equal(g.wants, g.base)
}

// Close takes the endpoint out: it is marked as draining, so that watchers can tell
// that it went on purpose, and deleted unless a successor has the key. It returns when
// that is done and nothing that was sent before can bring the key back. If the context
// ends first, or after 15 s without etcd, it returns an error and goes on behind; the
// Registrar's Close or the end of the lease finishes it.
func (g *Registration) Close(ctx context.Context) error {
	g.leave()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return g.await(ctx, "deregister", func() bool { return g.state.Phase == Closed && g.state.Err == nil })
}

// leave has the endpoint taken out. Where there was never a lease there is nothing in etcd.
func (g *Registration) leave() {
	r := g.registrar
	r.mu.Lock()
	if !g.gone && g.state.Phase != Closed {
		g.gone, g.dirty, g.notBefore = true, true, time.Time{}
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
			cause := context.Cause(ctx)
			if state.Err != nil {
				return fmt.Errorf("%s %q: %w (%w)", verb, g.key, cause, state.Err)
			}
			return fmt.Errorf("%s %q: %w", verb, g.key, r.explain(cause))
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
	g.state.Lease, g.state.TTL = 0, 0
	if phase == Registered || phase == Draining {
		g.state.Lease, g.state.TTL = g.standing, g.registrar.granted
	}
	close(g.changed)
	g.changed = make(chan struct{})
}
