// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	defaultTTL   = 10 * time.Second
	mostWatched  = 16                     // registrations whose keys are watched; those beyond are checked in batches
	fleetSpread  = 500 * time.Millisecond // a fleet that lost its leases together does not come back together
	writeWorkers = 32                     // writes under way at once
	mostDeparted = 10_000                 // deregistered keys that are remembered
	mostFormer   = 7                      // lost leases that are remembered
	mostAudited  = 100                    // registrations that are checked at once; a server takes 128 operations by default
)

// errClientClosed is the end of everything that is kept through a client.
var errClientClosed = errors.New("the etcd client was closed; its lease runs out by itself")

// RegistrarOptions are the settings of a Registrar; the zero value works.
type RegistrarOptions struct {
	TTL       time.Duration // how long a dead process stays listed; default 10 s, at least 1 s, rounded up to seconds
	Policy    AddressPolicy // what may be advertised; default HostPort
	Directory *Directory    // watches the keys; default the client's shared one
	Logger    *slog.Logger  // default: silent
}

func (o *RegistrarOptions) validate(client *clientv3.Client) (err error) {
	if client == nil {
		return errors.New("rollcall: the etcd client is nil")
	}
	switch {
	case o.TTL == 0:
		o.TTL = defaultTTL
	case o.TTL < time.Second:
		return inputError("TTL", o.TTL.String(), "a lease lives at least 1s")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Directory == nil {
		o.Directory, err = SharedDirectory(client)
	}
	return err
}

// Registrar keeps endpoints in etcd under one lease, for as long as it lives, whatever
// happens to etcd, the network or the process in between. Closing its client ends it.
type Registrar struct {
	client *clientv3.Client
	opts   RegistrarOptions
	log    *slog.Logger
	wake   chan struct{} // capacity 1: a registration is dirty
	stop   func()        // cancels and joins run; set once

	audited int // registrations to check at once; owned by run

	mu      sync.Mutex
	closed  bool
	regs    map[string]*Registration // by key
	lease   clientv3.LeaseID         // 0 while there is none. Invariant: only run changes it; Close does after run
	granted time.Duration
	former  []clientv3.LeaseID // leases that were lost, the latest last; a restored etcd may have them again
	watched int

	departed map[string]bool // keys deregistered under this lease; a restored etcd may have them again
}

// NewRegistrar returns a Registrar, which talks to etcd from its first registration
// on. Options out of range are an *InputError.
func NewRegistrar(client *clientv3.Client, opts RegistrarOptions) (*Registrar, error) {
	if err := opts.validate(client); err != nil {
		return nil, err
	}
	r := &Registrar{client: client, opts: opts, log: opts.Logger,
		wake: make(chan struct{}, 1), audited: mostAudited, regs: make(map[string]*Registration), departed: make(map[string]bool)}
	r.stop = start(r.run)
	return r, nil
}

// Check returns why Register would refuse an endpoint: an *InputError, or ErrClosed after
// Close.
func (r *Registrar) Check(service string, ep Endpoint) error {
	g, err := r.prepare(service, ep)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("register %q: the registrar is %w", g.key, ErrClosed)
	}
	return nil
}

// Register begins to keep an endpoint in etcd and returns at once; Wait waits until it
// is there. A key that stands in etcd already is taken over: a restarted instance is
// its own successor, and so is one whose last registration is still being closed. What
// can never work is an *InputError.
func (r *Registrar) Register(service string, ep Endpoint) (*Registration, error) {
	g, err := r.prepare(service, ep)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("register %q: the registrar is %w", g.key, ErrClosed)
	}
	if old := r.regs[g.key]; old != nil && !old.gone {
		return nil, inputError("key", g.key, "this registrar holds it already")
	} else if old != nil {
		r.finishLocked(old, nil)
	}
	if r.watched < mostWatched {
		if g.sub, err = r.opts.Directory.subscribeKey(g.key, r.wake); err != nil {
			return nil, fmt.Errorf("register %q: the directory is %w", g.key, err)
		}
		r.watched++
	}
	r.regs[g.key] = g
	notify(r.wake)
	return g, nil
}

// prepare makes a registration that is not kept yet.
func (r *Registrar) prepare(service string, ep Endpoint) (*Registration, error) {
	service, err := ParseService(service)
	if err != nil {
		return nil, err
	}
	if err := r.opts.Policy.Check(ep.Addr); err != nil {
		return nil, err
	}
	value, err := Encode(ep.Addr, ep.Metadata)
	if err != nil {
		return nil, err
	}
	if ep.ID == "" {
		ep.ID = ep.Addr
	}
	if err := CheckKey(Key(service, ep.ID)); err != nil {
		return nil, err
	}
	return &Registration{registrar: r, service: service, key: Key(service, ep.ID), addr: ep.Addr, value: value,
		write: true, dirty: true, state: State{Since: time.Now()}, changed: make(chan struct{})}, nil
}

// Close takes every endpoint out, each as Registration.Close does, and revokes the
// lease. It returns the context's error if that ended first; the lease is then revoked
// all the same if etcd can be had within a second more, or else runs out.
func (r *Registrar) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	regs := make([]*Registration, 0, len(r.regs))
	for _, g := range r.regs {
		regs = append(regs, g)
	}
	r.mu.Unlock()
	for _, g := range regs {
		g.leave()
	}
	var failed error
	for _, g := range regs {
		if err := g.Close(ctx); err != nil && !errors.Is(err, ErrClosed) {
			failed = err
			break
		}
	}
	r.stop()
	r.mu.Lock()
	lease := r.lease
	r.lease = 0
	for _, g := range r.regs {
		r.finishLocked(g, nil)
	}
	r.mu.Unlock()
	if lease == 0 {
		return failed
	}
	bound := callTimeout
	if failed != nil {
		bound = time.Second
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	if _, err := r.client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return errors.Join(failed, fmt.Errorf("revoke lease %x: %w", int64(lease), err))
	}
	return failed
}

// run holds a lease and keeps every registration as it should be, until the context or
// the client ends.
func (r *Registrar) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.client.Ctx(), cancel)()
	defer func() {
		if r.client.Ctx().Err() != nil {
			r.abandon()
		}
	}()
	var retry backoff
	for ctx.Err() == nil {
		if r.idle() {
			_ = sleep(ctx, time.Hour, r.wake)
			continue
		}
		err := r.ensureLease(ctx)
		if err == nil {
			began := time.Now()
			err = r.hold(ctx)
			if time.Since(began) > retryCeiling {
				retry.reset()
			}
		}
		if ctx.Err() != nil {
			return
		}
		r.interrupted(err)
		_ = sleep(ctx, retry.next(), r.opts.Directory.link.recovery())
	}
}

// abandon ends every registration of a client that was closed.
func (r *Registrar) abandon() {
	r.mu.Lock()
	r.closed = true
	var subs []*Subscription
	for _, g := range r.regs {
		subs = append(subs, r.unwatchLocked(g))
		r.finishLocked(g, errClientClosed)
	}
	r.mu.Unlock()
	for _, sub := range subs {
		if sub != nil {
			sub.Close()
		}
	}
}

// idle says whether there is nothing to hold a lease for.
func (r *Registrar) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.regs) == 0 && r.lease == 0
}

// ensureLease leaves the Registrar with a lease that etcd has: the one it had, if that
// still lives, else a new one.
func (r *Registrar) ensureLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if r.lease != 0 {
		left, err := r.client.TimeToLive(ctx, r.lease)
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("look up lease %x: %w", int64(r.lease), err)
		}
		if err == nil && left.TTL > 0 {
			return nil
		}
		r.log.Warn("lease is gone: registering again", "lease", fmt.Sprintf("%x", int64(r.lease)))
		r.leased(0, 0)
		if err := sleep(ctx, jitter(fleetSpread), nil); err != nil {
			return err
		}
	}
	seconds := int64((r.opts.TTL + time.Second - 1) / time.Second)
	resp, err := r.client.Grant(ctx, seconds)
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	r.leased(resp.ID, time.Duration(resp.TTL)*time.Second)
	return nil
}

// leased records the lease; every registration must be put under it. What is to go while
// there is none is gone already, with the lease that there was.
func (r *Registrar) leased(lease clientv3.LeaseID, granted time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease != 0 {
		r.former = append(r.former[max(0, len(r.former)-mostFormer):], r.lease)
	}
	r.lease, r.granted = lease, granted
	clear(r.departed)
	for _, g := range r.regs {
		g.dirty = true
		if g.gone && lease == 0 {
			r.finishLocked(g, nil)
		}
	}
}

// interrupted records why registrations are not, or may not be, in etcd.
func (r *Registrar) interrupted(err error) {
	err = r.explain(err)
	r.log.Warn("registration interrupted", "cause", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.regs {
		g.dirty = true
		g.missedLocked(err)
	}
}

// explain adds what is known of the way to etcd: a time-out alone tells little.
func (r *Registrar) explain(err error) error {
	v, _ := r.opts.Directory.link.current()
	if v.down == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, v.down.Cause)
}

// hold keeps the lease alive and settles registrations until the lease is in doubt:
// its keepalives went unanswered for its whole time, or a write found it gone.
// Doubt cuts short what is under way, which may be waiting for an etcd that is gone.
func (r *Registrar) hold(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var renewals sync.WaitGroup
	defer renewals.Wait()
	defer cancel(nil)
	// Never with a required leader: the client would go on renewing a lease that nobody
	// holds any more (etcd#22094).
	alive, err := r.client.KeepAlive(ctx, r.lease)
	if err != nil {
		return fmt.Errorf("keep lease %x alive: %w", int64(r.lease), err)
	}
	renewals.Go(func() {
		for {
			select {
			case _, ok := <-alive:
				if !ok {
					cancel(fmt.Errorf("lease %x was not renewed within %v", int64(r.lease), r.granted))
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	audit := time.NewTicker(max(r.granted/3, time.Second))
	defer audit.Stop()
	sweep := time.NewTimer(r.sweepPause())
	defer sweep.Stop()
	var retry backoff
	var again <-chan time.Time
	for {
		switch err := r.settle(ctx); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return err
		case err != nil:
			r.log.Warn("cannot write registrations", "cause", err)
			again = time.After(retry.next())
		default:
			retry.reset()
			again = nil
		}
	wait:
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-audit.C:
				if r.audit(ctx) {
					break wait
				}
			case <-sweep.C:
				r.sweep(ctx)
				sweep.Reset(r.sweepPause())
			case <-r.wake:
				break wait
			case <-again:
				break wait
			}
		}
	}
}
