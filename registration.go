// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// shutdownTimeout bounds a Shutdown that etcd does not answer: a broken connection is given up
// after 13 s.
const shutdownTimeout = 15 * time.Second

// Endpoint describes an instance.
type Endpoint struct {
	ID       string // last part of the key; default: Addr
	Addr     string // where clients reach it; see RegistrarOptions.Policy
	Metadata any    // anything that encoding/json writes; an object to use Attributes. See RegistrarOptions.NoOrigin
}

// ID is the last part of the key, after the service.
func (g *Registration) ID() string { return g.id }

// Key is the whole key in etcd.
func (g *Registration) Key() string { return g.key }

// Service is the service that the endpoint belongs to.
func (g *Registration) Service() string { return g.service }

// Addr is the advertised address.
func (g *Registration) Addr() string { return g.addr }

// State returns the state in etcd at this moment, and a channel that closes when it changes.
// A readiness probe must not depend on it, or an outage of etcd takes every server out; see
// serving.Server.Readiness.
func (g *Registration) State() (State, <-chan struct{}) {
	g.registrar.mu.Lock()
	defer g.registrar.mu.Unlock()
	return g.state, g.stateChangeLocked()
}

// Wait waits until the endpoint is in etcd as it should be. It fails with the
// context, whose error then wraps why, or with ErrClosed.
func (g *Registration) Wait(ctx context.Context) error {
	return g.await(ctx, "register", func() bool {
		return !pending(g.desired, &g.observed) && g.state.Err == nil && !g.desired.removed
	})
}

// Update replaces the metadata: same key, same lease, one event. It returns once etcd
// has it; if the context ends first, it is written as soon as etcd can be reached. Bad
// metadata is an *InputError. An endpoint that Drain has marked stays marked, for which its
// metadata must be an object. Fields that an operator has edited and that are the same as
// before the update stay as the operator left them; a status that an operator has set stays
// in any case until an operator takes it back.
func (g *Registration) Update(ctx context.Context, metadata any) error {
	value, err := g.registrar.encode(g.addr, metadata)
	if err != nil {
		return err
	}
	return g.set(ctx, "update", func() (desired, error) { return g.desired.with(value, g.desired.draining) })
}

// Drain marks the endpoint ("status": "draining" in its metadata), so that clients finish their
// calls and send no new ones. It sets the mark again if an operator has removed that of an
// earlier Drain. If the metadata is not an object, it cannot be marked: an *InputError. It returns as
// Update does: while another process has the key, not before the context ends.
func (g *Registration) Drain(ctx context.Context) error {
	return g.set(ctx, "drain", func() (desired, error) {
		marked, err := g.desired.with(g.desired.plain, true)
		if err == nil {
			g.observed.draining(g.desired)
		}
		return marked, err
	})
}

// Undrain takes the mark of Drain away. An endpoint whose metadata has the mark without
// Drain keeps it, as does one that an operator has marked, until the operator takes it back:
// the phase stays Draining then.
func (g *Registration) Undrain(ctx context.Context) error {
	return g.set(ctx, "undrain", func() (desired, error) { return g.desired.with(g.desired.plain, false) })
}

// encode is Encode, with where the endpoint comes from.
func (r *Registrar) encode(addr string, metadata any) ([]byte, error) {
	data, err := encodeMetadata(metadata)
	if err != nil {
		return nil, err
	}
	return encodeValue(addr, withOrigin(data, r.origin))
}

// set has the program want what change returns, which is called under the lock, and waits until
// etcd has it.
func (g *Registration) set(ctx context.Context, verb string, change func() (desired, error)) error {
	if err := g.change(verb, change); err != nil {
		return err
	}
	backoff.Wake(g.registrar.wake)
	return g.await(ctx, verb, func() bool { return !pending(g.desired, &g.observed) && g.state.Err == nil })
}

func (g *Registration) change(verb string, change func() (desired, error)) error {
	g.registrar.mu.Lock()
	defer g.registrar.mu.Unlock()
	if g.desired.removed || g.state.Phase == Closed {
		return fmt.Errorf("%s %q: %w", verb, g.key, g.state.closed())
	}
	wanted, err := change()
	if err != nil {
		return err
	}
	g.desired, g.notBefore = wanted, time.Time{}
	g.dirtyLocked()
	g.setLocked(g.state.Phase, g.state.Err)
	return nil
}

// Shutdown removes the endpoint: it is marked as draining, so that watchers can tell that
// it went on purpose, and deleted unless a successor has the key. It returns when that is
// done and nothing that was sent before can bring the key back. If the context ends first,
// or after 15 s without etcd, it returns an error, and the Registrar goes on removing it in
// the background until it is closed itself or the lease ends.
func (g *Registration) Shutdown(ctx context.Context) error {
	g.remove()
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	return g.awaitRemoved(ctx)
}

// Close begins to remove the endpoint, as Shutdown does, and returns at once. The Registrar
// removes it in the background; the phase is Closed when that is done.
func (g *Registration) Close() { g.remove() }

// remove has the endpoint removed.
func (g *Registration) remove() {
	r := g.registrar
	r.mu.Lock()
	sub := g.removeLocked()
	r.mu.Unlock()
	if sub != nil {
		sub.Close()
	}
	backoff.Wake(r.wake)
}

// removeLocked has the endpoint removed once the Registrar is woken, and returns a watch to be closed, nil for
// none. Where there was never a lease there is nothing in etcd.
func (g *Registration) removeLocked() (sub *Subscription) {
	r := g.registrar
	if !g.desired.removed && g.state.Phase != Closed {
		if marked, err := g.desired.with(g.desired.plain, true); err == nil {
			g.desired = marked
		}
		g.desired.removed, g.observed.fresh = true, false
		g.notBefore = time.Time{}
		if r.lease == 0 {
			r.finishLocked(g, nil)
		} else {
			g.dirtyLocked()
		}
	}
	return r.unwatchLocked(g)
}

func (g *Registration) awaitRemoved(ctx context.Context) error {
	return g.await(ctx, "deregister", func() bool { return g.state.Phase == Closed && g.state.Err == nil })
}

// await waits for a condition on what registrar.mu guards.
func (g *Registration) await(ctx context.Context, verb string, met func() bool) error {
	r := g.registrar
	for {
		r.mu.Lock()
		ok, state, changed := met(), g.state, g.stateChangeLocked()
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
