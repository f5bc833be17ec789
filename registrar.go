// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	defaultTTL   = 10 * time.Second
	closeTimeout = 650 * time.Millisecond // of a Close, which revokes leases for another closeRevoke
	closeRevoke  = 300 * time.Millisecond
)

// NewRegistrar returns a Registrar that uses the Directory's client, and its watches to
// see what becomes of its keys. With a client alone, give it SharedDirectory(client). It
// talks to etcd from its first registration on. Options out of range are an *InputError.
func NewRegistrar(directory *Directory, opts RegistrarOptions) (*Registrar, error) {
	if directory == nil {
		return nil, errors.New("rollcall: the Directory is nil; SharedDirectory returns a client's")
	}
	switch {
	case opts.TTL == 0:
		opts.TTL = defaultTTL
	case opts.TTL < time.Second:
		return nil, inputError("TTL", opts.TTL.String(), "a lease lives at least 1s")
	}
	var origin []metadataField
	if !opts.NoOrigin {
		origin = processOrigin()
	}
	r := &Registrar{origin: origin, directory: directory, client: directory.Client(), opts: opts,
		wake: make(chan struct{}, 1), batch: maxBatch, writeBound: firstTry, regs: make(map[string]*Registration),
		unanswered: make(map[string][]clientv3.LeaseID), watches: make(map[string]*keyWatch),
		deregistered: make(map[string]bool), edits: make(map[string]values), cleared: make(map[string]bool)}
	r.stop = background.Start(r.client.Ctx(), r.run)
	return r, nil
}

// Check returns why Register would refuse an endpoint: an *InputError, or an error that wraps
// ErrClosed after Shutdown or Close, or once the etcd client is closed.
func (r *Registrar) Check(service string, ep Endpoint) error {
	g, err := r.prepare(service, ep)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closedLocked(g)
}

func (r *Registrar) closedLocked(g *Registration) error {
	switch {
	case r.client.Ctx().Err() != nil:
		return fmt.Errorf("register %q: %w", g.key, etcdkv.ErrClientClosed)
	case r.closed:
		return fmt.Errorf("register %q: the Registrar is %w", g.key, ErrClosed)
	}
	return nil
}

// Register begins to keep an endpoint in etcd and returns at once; Wait waits until it
// is there. A key that exists already is taken over: a restarted instance is its own
// successor, and so is one whose last registration is still being removed. What an operator
// edited during the last registration of the key stays, as it does in an Update. The metadata
// gets "started" and "host", see RegistrarOptions.NoOrigin. What can never work is an *InputError.
// Many endpoints are written in batches: Register them all before you Wait for the first.
func (r *Registrar) Register(service string, ep Endpoint) (*Registration, error) {
	g, err := r.prepare(service, ep)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.closedLocked(g); err != nil {
		return nil, err
	}
	if err := r.registerLocked(g); err != nil {
		return nil, err
	}
	return g, nil
}

func (r *Registrar) registerLocked(g *Registration) error {
	if old := r.regs[g.key]; old != nil && !old.desired.removed {
		return inputError("key", g.key, "this registrar has registered it already")
	} else if old != nil {
		g.observed.revision = old.observed.revision                     // the key as it is now is not news
		g.observed.unconfirmed = slices.Clone(old.observed.unconfirmed) // which may still happen, a mark among them
		r.finishLocked(old, nil)
	}
	if v, ok := r.edits[g.key]; ok {
		g.observed.values = values{applied: g.desired.value, current: v.target(g.desired.value), status: v.status}
	}
	r.watchLocked(g)
	r.regs[g.key] = g
	g.dirtyLocked()
	backoff.Wake(r.wake)
	return nil
}

// Replace closes the registration and registers another endpoint under its key, which has a value all the
// time. The ID of the endpoint is the registration's; it may be left out.
func (g *Registration) Replace(ep Endpoint) (*Registration, error) {
	if ep.ID != "" && ep.ID != g.id {
		return nil, inputError("id", ep.ID, "the registration that is to be replaced has the id %q", g.id)
	}
	ep.ID = g.id
	r := g.registrar
	next, err := r.prepare(g.service, ep)
	if err != nil {
		return nil, err
	}
	var sub *Subscription
	r.mu.Lock()
	if err = r.closedLocked(next); err == nil {
		sub = g.removeLocked()
		err = r.registerLocked(next)
	}
	r.mu.Unlock()
	if sub != nil {
		sub.Close()
	}
	if err != nil {
		return nil, err
	}
	return next, nil
}

// prepare makes a registration that is not maintained yet.
func (r *Registrar) prepare(service string, ep Endpoint) (*Registration, error) {
	service, err := ParseService(service)
	if err != nil {
		return nil, err
	}
	if err := r.opts.Policy.Check(ep.Addr); err != nil {
		return nil, err
	}
	value, err := r.encode(ep.Addr, ep.Metadata)
	if err != nil {
		return nil, err
	}
	if ep.ID == "" {
		ep.ID = ep.Addr
	}
	key := Key(service, ep.ID)
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	return &Registration{registrar: r, service: service, id: ep.ID, key: key, addr: ep.Addr,
		desired: desired{plain: value, value: value}, observed: observed{values: values{applied: value, current: value}},
		state: State{Since: time.Now()}}, nil
}

// Shutdown removes every endpoint, each as Registration.Shutdown does, and revokes the
// lease. If the context ends first, after 15 s without etcd, or where the right to write is missing, it
// returns an error; the lease is then still revoked if etcd answers within another second. Nothing of the
// Registrar runs afterwards. A lease that was not revoked expires within its TTL, and with it
// the keys.
func (r *Registrar) Shutdown(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	return r.shutdown(bounded, time.Second)
}

// Close is a Shutdown that takes a second at most, whatever etcd does, and logs why it
// fails. Nothing of the Registrar runs afterwards; where etcd did not answer, the keys go
// when the lease ends.
func (r *Registrar) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = r.shutdown(ctx, closeRevoke) // has been logged
}

// shutdown removes every endpoint until the context ends, then revokes the leases, for no
// longer than a bound where etcd has not answered.
func (r *Registrar) shutdown(ctx context.Context, bound time.Duration) error {
	failed := r.removeAll(ctx)
	r.stop()
	r.logEvents()
	r.mu.Lock()
	leases := slices.Clone(r.retired)
	if r.lease != 0 && !slices.Contains(leases, r.lease) {
		leases = append([]clientv3.LeaseID{r.lease}, leases...)
	}
	left, ttl := len(r.regs), r.ttl
	r.lease, r.retired = 0, nil
	for _, g := range r.regs {
		r.finishLocked(g, failed)
	}
	r.mu.Unlock()
	if failed == nil {
		bound = max(bound, min(timeLeft(ctx), etcdkv.CallTimeout))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	var unrevoked error
	for _, lease := range leases {
		if err := r.revoke(last, lease); err != nil {
			unrevoked = errors.Join(unrevoked, r.explain(err))
		}
	}
	all := errors.Join(failed, unrevoked)
	switch {
	case unrevoked != nil && left > 0:
		r.Logger().Warn("closed without an answer from etcd; what is registered goes when its lease ends",
			"registrations", left, "within", ttl, "cause", all)
	case unrevoked != nil:
		r.Logger().Warn("lease not revoked; it ends on its own", "within", ttl, "cause", all)
	case failed != nil:
		r.Logger().Warn("endpoints not deregistered one by one; revoking the lease removed them", "registrations", left, "cause", all)
	}
	return all
}

// removeAll closes the Registrar to new registrations and removes those that it has. It does not wait
// for the right to remove one.
func (r *Registrar) removeAll(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	regs := slices.Collect(maps.Values(r.regs))
	r.mu.Unlock()
	for _, g := range regs {
		g.remove()
	}
	var denied error
	for _, g := range regs {
		err := g.await(ctx, "deregister", func() bool {
			if !errors.Is(g.state.Err, rpctypes.ErrPermissionDenied) {
				return g.state.Phase == Closed && g.state.Err == nil
			}
			denied = cmp.Or(denied, fmt.Errorf("deregister %q: %w", g.key, g.state.Err))
			return true
		})
		if err != nil && !errors.Is(err, ErrClosed) {
			return errors.Join(denied, err)
		}
	}
	return denied
}

// timeLeft returns the time until a context ends by its deadline.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return backoff.Never
	}
	return time.Until(deadline)
}

// RegistrarStats are what a Registrar has now, and what it has done since it was made.
type RegistrarStats struct {
	// Now.
	Registrations []RegistrationStats // by key; without those that are closed
	Phases        map[Phase]int       // registrations by phase
	Lease         clientv3.LeaseID    // 0: none
	TTL           time.Duration       // of the lease, as etcd granted it
	LeasedAt      time.Time           // when it did

	// Since the Registrar was made.
	Leases          uint64 // leases granted
	Renewals        uint64 // keepalives that etcd answered
	LeasesExpired   uint64 // leases that etcd was found not to have any more
	LeasesUnrenewed uint64 // times that a lease was not renewed for its whole time; it may have expired
	LeasesReplaced  uint64 // leases given up so that no late create can happen under them
	Writes          uint64 // keys put or deleted, as sent: also where one of a transaction was found changed, and again where it is sent in parts
	WriteFailures   uint64 // of them, those that etcd refused or did not answer
}

// RegistrationStats is one registration in RegistrarStats.
type RegistrationStats struct {
	Service, ID, Key string
	State            State
}

// Stats returns the Registrar's figures. It takes the Registrar's lock for as long as it
// takes to copy the states.
func (r *Registrar) Stats() RegistrarStats {
	s := RegistrarStats{
		Phases:          make(map[Phase]int),
		Leases:          r.counts.leases.Load(),
		Renewals:        r.counts.renewals.Load(),
		LeasesExpired:   r.counts.leasesExpired.Load(),
		LeasesUnrenewed: r.counts.leasesUnrenewed.Load(),
		LeasesReplaced:  r.counts.leasesReplaced.Load(),
		Writes:          r.counts.writes.Load(),
		WriteFailures:   r.counts.writeFailures.Load(),
	}
	r.mu.Lock()
	s.Registrations = make([]RegistrationStats, 0, len(r.regs))
	for _, g := range r.regs {
		s.Registrations = append(s.Registrations, RegistrationStats{g.service, g.id, g.key, g.state})
	}
	if r.lease != 0 {
		s.Lease, s.TTL, s.LeasedAt = r.lease, r.ttl, r.leasedAt
	}
	r.mu.Unlock()
	for _, g := range s.Registrations {
		s.Phases[g.State.Phase]++
	}
	slices.SortFunc(s.Registrations, func(a, b RegistrationStats) int { return strings.Compare(a.Key, b.Key) })
	return s
}
