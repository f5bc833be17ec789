// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	defaultTTL   = 10 * time.Second
	closeTimeout = 15 * time.Second // of a Close that etcd does not answer: a broken connection is given up after 13 s
	mostDeparted = 10_000           // deregistered keys that are remembered
)

// RegistrarOptions are the settings of a Registrar; the zero value works.
type RegistrarOptions struct {
	TTL       time.Duration // how long a dead process stays listed; default 10 s, at least 1 s, rounded up to seconds
	Policy    AddressPolicy // what may be advertised; default HostPort
	Directory *Directory    // watches the keys, with the same client; default the client's shared one
	Logger    *slog.Logger  // default slog.Default(); the client's shared Directory logs there too
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
	if o.Directory == nil {
		if o.Directory, err = SharedDirectory(client); err == nil && o.Logger != nil {
			o.Directory.SetLogger(o.Logger)
		}
	} else if o.Directory.client != client {
		err = inputError("directory", strings.Join(o.Directory.client.Endpoints(), ","),
			"it reads with another etcd client; make it with the registrar's, or leave it out")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
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

	// Owned by run.
	audited  int             // keys to look up at once
	fencing  backoff.Backoff // of a fence that fails
	fenceDue time.Time       // when it is tried again

	mu      sync.Mutex
	closed  bool
	regs    map[string]*Registration // by key
	lease   clientv3.LeaseID         // 0 while there is none. Invariant: only run changes it; Close does after run
	granted time.Duration
	former  []clientv3.LeaseID // leases before this one, the latest last; a restored etcd may have them again
	retired []clientv3.LeaseID // leases to be revoked, lest a create land under them; see fence
	// unanswered has, by key, a lease for each create that was sent under it and never
	// answered. It may land as long as etcd has the lease.
	unanswered map[string][]clientv3.LeaseID

	watches    map[string]*keyWatch // by name
	keyWatches int                  // how many of them are of one key

	departed map[string]bool // keys deregistered under this lease; a restored etcd may have them again
	edits    map[string]edit // by key: what an operator had edited when it was deregistered
	lifted   map[string]bool // causes that are gone, of what etcd refused
	events   []event         // to be logged
}

// NewRegistrar returns a Registrar, which talks to etcd from its first registration
// on. Options out of range are an *InputError.
func NewRegistrar(client *clientv3.Client, opts RegistrarOptions) (*Registrar, error) {
	if err := opts.validate(client); err != nil {
		return nil, err
	}
	r := &Registrar{client: client, opts: opts, log: opts.Logger,
		wake: make(chan struct{}, 1), audited: mostAudited, regs: make(map[string]*Registration),
		unanswered: make(map[string][]clientv3.LeaseID), watches: make(map[string]*keyWatch), departed: make(map[string]bool), edits: make(map[string]edit), lifted: make(map[string]bool)}
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
// its own successor, and so is one whose last registration is still being closed. What an
// operator edited during the last registration of the key stays, as it does in an Update.
// What can never work is an *InputError.
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
		g.revision = old.revision // what stands still is not news
		r.finishLocked(old, nil)
	}
	if e, ok := r.edits[g.key]; ok {
		g.base, g.value, g.status = e.base, e.value, e.status
		g.value = g.targetLocked()
		g.base = g.wants
	}
	if err := r.watchLocked(g); err != nil {
		return nil, fmt.Errorf("register %q: watch the key: %w", g.key, err)
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
	return &Registration{registrar: r, service: service, key: Key(service, ep.ID), addr: ep.Addr,
		base: value, wants: value, value: value,
		dirty: true, state: State{Since: time.Now()}, changed: make(chan struct{})}, nil
}

// Close takes every endpoint out, each as Registration.Close does, and revokes the
// lease. If the context ends first, or after 15 s without etcd, it returns an error: the
// lease is then revoked all the same if etcd answers within a second more, or else runs
// out, and the keys go with it.
func (r *Registrar) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	regs := slices.Collect(maps.Values(r.regs))
	r.mu.Unlock()
	for _, g := range regs {
		g.leave()
	}
	within, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	var failed error
	for _, g := range regs {
		if err := g.Close(within); err != nil && !errors.Is(err, ErrClosed) {
			failed = err
			break
		}
	}
	r.stop()
	r.logEvents()
	r.mu.Lock()
	leases := slices.Clone(r.retired)
	if r.lease != 0 && !slices.Contains(leases, r.lease) {
		leases = append([]clientv3.LeaseID{r.lease}, leases...)
	}
	left, granted := len(r.regs), r.granted
	r.lease, r.retired = 0, nil
	for _, g := range r.regs {
		r.finishLocked(g, nil)
	}
	r.mu.Unlock()
	bound := etcdkv.CallTimeout
	if failed != nil {
		bound = time.Second
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	for _, lease := range leases {
		if err := r.revoke(last, lease); err != nil {
			failed = errors.Join(failed, r.explain(err))
		}
	}
	if failed != nil && left > 0 {
		r.log.Warn("closed without an answer from etcd; what is registered goes when its lease ends",
			"registrations", left, "within", granted, "cause", failed)
	}
	return failed
}

// finishLocked ends a registration. Its key may have another one already.
func (r *Registrar) finishLocked(g *Registration, err error) {
	if r.regs[g.key] == g {
		delete(r.regs, g.key)
	}
	if r.lease != 0 && len(r.departed) < mostDeparted {
		r.departed[g.key] = true
	}
	if g.status == "" && bytes.Equal(g.base, g.value) {
		delete(r.edits, g.key)
	} else if len(r.edits) < mostDeparted {
		r.edits[g.key] = edit{g.base, g.value, g.status}
	}
	if g.deleted && !g.taken && g.state.Phase != Closed {
		r.noteLocked(slog.LevelInfo, "deregistered", g, nil)
	}
	g.setLocked(Closed, err)
}

// missedLocked records that the endpoint is not in etcd, for now.
func (r *Registrar) missedLocked(g *Registration, err error) {
	switch {
	case g.state.Phase == Registered, g.state.Phase == Draining:
		r.noteLocked(slog.LevelWarn, "registration lost", g, err)
	case g.state.Err == nil, causeOf(g.state.Err) != causeOf(err):
		r.noteLocked(slog.LevelWarn, "not registered", g, err)
	}
	phase := Lost
	if !g.claimed {
		phase = Registering
	}
	g.setLocked(phase, err)
}

// unwrittenLocked records that a write failed: the endpoint may stand in etcd as it was.
func (r *Registrar) unwrittenLocked(g *Registration, err error) {
	if g.standing == clientv3.NoLease {
		r.missedLocked(g, err)
		return
	}
	if g.state.Err == nil || causeOf(g.state.Err) != causeOf(err) {
		text := "registration cannot be written; it stays as it was"
		if g.gone {
			text = "cannot deregister yet"
		}
		r.noteLocked(slog.LevelWarn, text, g, err)
	}
	g.setLocked(phaseOf(g.value), err)
}

// causeOf tells causes apart that an operator would act on in different ways. All that is
// wrong with the connection is one: the Directory logs what becomes of it.
func causeOf(err error) string {
	var etcd rpctypes.EtcdError
	switch {
	case errors.Is(err, ErrSuperseded):
		return ErrSuperseded.Error()
	case errors.Is(err, errNotRenewed), concernsAll(err):
		return "connection"
	case errors.As(err, &etcd):
		return etcd.Error()
	}
	return err.Error()
}

// remind logs what etcd goes on refusing, from time to time.
func (r *Registrar) remind() {
	r.mu.Lock()
	for _, g := range r.regs {
		if g.state.Err != nil && !g.gone && causeOf(g.state.Err) != "connection" {
			r.noteLocked(slog.LevelWarn, "still not registered as it should be", g, g.state.Err)
		}
	}
	r.mu.Unlock()
	r.logEvents()
}

// event is what happened to a registration.
type event struct {
	level slog.Level
	text  string
	key   string
	cause error
}

// noteLocked has logEvents log what happened to a registration.
func (r *Registrar) noteLocked(level slog.Level, text string, g *Registration, cause error) {
	r.events = append(r.events, event{level, text, g.key, cause})
}

// logEvents logs what has been noted: one line for all registrations that the same happened to.
func (r *Registrar) logEvents() {
	r.mu.Lock()
	all, lease := r.events, r.lease
	r.events = nil
	r.mu.Unlock()
	if len(all) == 0 {
		return
	}
	first := make(map[string]event)
	count := make(map[string]int)
	var texts []string
	for _, n := range all {
		if count[n.text]++; count[n.text] == 1 {
			first[n.text] = n
			texts = append(texts, n.text)
		}
	}
	for _, text := range texts {
		n := first[text]
		args := []any{"key", n.key}
		if more := count[text] - 1; more > 0 {
			args = append(args, "andOthers", more)
		}
		if lease != 0 {
			args = append(args, "lease", leaseText(lease))
		}
		if n.cause != nil {
			args = append(args, "cause", n.cause)
		}
		r.log.Log(context.Background(), n.level, text, args...)
	}
}
