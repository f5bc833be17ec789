// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// Defaults of Options.
const (
	DefaultInterval = 5 * time.Second
	DefaultTimeout  = time.Second
	DefaultFall     = 3
	DefaultRise     = 2
)

// The least that Options may ask for.
const (
	MinInterval = 100 * time.Millisecond
	MinTimeout  = time.Millisecond
)

// startInterval is the longest time between checks of what has not been healthy yet.
const startInterval = time.Second

// Options describe an endpoint and what it must do to be registered.
type Options struct {
	Registrar *rollcall.Registrar // required; it stays open
	Service   string              // required
	Endpoint  rollcall.Endpoint   // its Addr is required

	Checks   []Check       // all must pass; without any the endpoint is healthy
	Interval time.Duration // from the start of a run of the checks to the next; default 5 s, at least 100 ms
	Timeout  time.Duration // of a check; default 1 s
	Fall     int           // failures in a row that take the endpoint out; default 3
	Rise     int           // successes in a row that register it, or let it return; default 2

	// Report, if set, is called with each change, from Run.
	Report func(Event)

	// Before, if set, is called from Run before the endpoint is registered. What it returns, nil for nothing,
	// has registered the key with the same Registrar, and is replaced: the key has a value all the time.
	Before func() *Endpoint

	// FailOpen, if set, is asked from Run whenever the endpoint would go out. If it returns true the
	// endpoint stays in, until the next failure.
	FailOpen func() bool
}

// Validate returns what is wrong with how the endpoint is checked: an *rollcall.InputError for each
// field, joined. It neither needs a Registrar nor fills in a default: a zero Interval, Timeout, Fall
// or Rise is wrong.
func (o *Options) Validate() error {
	var wrong []error
	for _, d := range []struct {
		name         string
		value, least time.Duration
	}{{"interval", o.Interval, MinInterval}, {"timeout", o.Timeout, MinTimeout}} {
		if d.value < d.least {
			wrong = append(wrong, inputError(d.name, d.value.String(), fmt.Sprintf("must be at least %v, such as 5s", d.least)))
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"fall", o.Fall}, {"rise", o.Rise}} {
		if n.value < 1 {
			wrong = append(wrong, inputError(n.name, fmt.Sprint(n.value), "must be at least 1"))
		}
	}
	if len(o.Checks) > 0 {
		metadata, err := json.Marshal(o.Endpoint.Metadata)
		if err == nil {
			_, err = rollcall.WithField(metadata, "status", rollcall.StatusDraining)
		}
		if err != nil {
			wrong = append(wrong, inputError("metadata", string(metadata), "it must be an object, since a failed check sets \"status\" in it"))
		}
	}
	return errors.Join(wrong...)
}

func inputError(field, value, reason string) error {
	return &rollcall.InputError{Field: field, Value: value, Reason: reason}
}

// Endpoint is an endpoint that is in etcd while its checks pass.
type Endpoint struct {
	opts Options

	// Owned by Run.
	health   hysteresis
	reported Event // the last one
	told     time.Time

	mu      sync.Mutex
	err     error                  // of the last run of the checks
	since   time.Time              // of the first run that found the same
	passed  time.Time              // when the last run that passed began
	healthy bool                   // as health has it
	reg     *rollcall.Registration // nil until the checks have passed
	begun   chan struct{}          // closed when reg is set
}

// New returns an endpoint that Run keeps. Options that can never work are an error.
func New(opts Options) (*Endpoint, error) {
	if opts.Registrar == nil {
		return nil, errors.New("healthcheck: Options.Registrar is nil")
	}
	if err := opts.Registrar.Check(opts.Service, opts.Endpoint); err != nil {
		return nil, err
	}
	opts.Interval = cmp.Or(opts.Interval, DefaultInterval)
	opts.Timeout = cmp.Or(opts.Timeout, DefaultTimeout)
	opts.Fall, opts.Rise = cmp.Or(opts.Fall, DefaultFall), cmp.Or(opts.Rise, DefaultRise)
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if len(opts.Checks) == 0 { // passes once, and for good
		opts.Rise, opts.Interval = 1, backoff.Never
	}
	return &Endpoint{opts: opts, health: hysteresis{fall: opts.Fall, rise: opts.Rise}, err: errors.New("not checked yet"),
		begun: make(chan struct{})}, nil
}

// Key is the endpoint's key in etcd.
func (e *Endpoint) Key() string {
	id := e.opts.Endpoint.ID
	if id == "" {
		id = e.opts.Endpoint.Addr
	}
	return rollcall.Key(e.opts.Service, id)
}

// Run checks the endpoint and keeps it in etcd accordingly, until ctx ends. It then leaves it as it
// is: see Drain and Remove. It fails only where the endpoint can never be registered.
func (e *Endpoint) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		began := time.Now()
		err := e.check(ctx)
		if ctx.Err() != nil {
			break
		}
		if err := e.observe(began, err); err != nil {
			return err
		}
		interval := e.opts.Interval
		if e.registration() == nil {
			interval = min(interval, startInterval)
		}
		_ = backoff.Sleep(ctx, interval-time.Since(began), nil)
	}
	return nil
}

// check runs all checks at once, and returns the error of the first that fails, in their order.
func (e *Endpoint) check(ctx context.Context) error {
	errs := make([]error, len(e.opts.Checks))
	var running sync.WaitGroup
	for i, c := range e.opts.Checks {
		running.Go(func() { errs[i] = c.Run(ctx, e.opts.Timeout) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// observe acts on the result of a run of the checks.
func (e *Endpoint) observe(began time.Time, result error) error {
	now := time.Now()
	e.mu.Lock()
	if e.since.IsZero() || (e.err == nil) != (result == nil) {
		e.since = now
	}
	if e.err = result; result == nil {
		e.passed = began
	}
	e.mu.Unlock()
	if result != nil && e.health.due() && e.opts.FailOpen != nil && e.opts.FailOpen() {
		e.report(FailedOpen, result)
		return nil
	}
	changed := e.health.observe(result == nil, now)
	switch {
	case !changed && result == nil && e.health.damped():
		e.report(Damped, nil)
	case !changed && result == nil && e.health.healthy && e.reported.Kind == FailedOpen:
		e.report(Recovered, nil)
	case !changed && result != nil && e.registration() == nil:
		e.report(Waiting, result)
	}
	if !changed {
		return nil
	}
	e.mu.Lock()
	e.healthy = e.health.healthy
	e.mu.Unlock()
	return e.apply(result)
}

// apply registers the endpoint, drains it or lets it return. It does not wait for etcd: the
// registration does what was asked last, as soon as it can.
func (e *Endpoint) apply(result error) error {
	switch reg := e.registration(); {
	case reg == nil:
		e.report(Registering, nil)
		return e.register()
	case result == nil:
		e.report(Returning, nil)
		return begin(reg.Undrain)
	default:
		e.report(Leaving, result)
		return begin(reg.Drain)
	}
}

// begin begins a change of a registration, which goes on without its context, and does not wait for etcd.
func begin(change func(context.Context) error) error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := change(ended); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (e *Endpoint) register() error {
	reg, err := e.registerAnew()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reg = reg
	close(e.begun)
	return nil
}

func (e *Endpoint) registerAnew() (*rollcall.Registration, error) {
	if e.opts.Before != nil {
		if was := e.opts.Before(); was != nil {
			return was.registration().Replace(e.opts.Endpoint)
		}
	}
	return e.opts.Registrar.Register(e.opts.Service, e.opts.Endpoint)
}

// retell is the least time between two reports of one Kind, whose cause has changed.
const retell = 10 * time.Second

// report reports an event, unless it is what was reported last.
func (e *Endpoint) report(kind Kind, cause error) {
	now, last := time.Now(), e.reported
	if kind == last.Kind && (fmt.Sprint(cause) == fmt.Sprint(last.Cause) || now.Sub(e.told) < retell) {
		return
	}
	e.reported, e.told = Event{Kind: kind, Key: e.Key(), Cause: cause, Until: e.health.until}, now
	if e.opts.Report != nil {
		e.opts.Report(e.reported)
	}
}

func (e *Endpoint) registration() *rollcall.Registration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reg
}

// Registration waits until the endpoint has passed its checks for the first time.
func (e *Endpoint) Registration(ctx context.Context) (*rollcall.Registration, error) {
	select {
	case <-e.begun:
		return e.registration(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait until %q is healthy: %w", e.Key(), ctx.Err())
	}
}
