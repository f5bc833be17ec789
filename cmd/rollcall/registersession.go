// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func (a *app) register(ctx context.Context, f registerFlags, e entry, command []string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	signals := make(chan os.Signal, 8)
	handled := append([]os.Signal{os.Interrupt, syscall.SIGTERM}, passedOn...)
	if len(command) == 0 {
		handled = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	}
	for _, sig := range handled {
		if sig != syscall.SIGHUP || !signal.Ignored(sig) { // nohup ignores it
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	s := &registerSession{a: a, client: client, entry: e, drain: f.drain, checked: len(f.checks) > 0, until: time.Now().Add(a.dialTimeout), out: a.stdout}
	starting, cancel := context.WithDeadline(ctx, s.until)
	defer cancel()
	if err := connect(starting, client); err != nil {
		return err
	}
	if err := s.prepare(starting, f); err != nil {
		return err
	}
	if f.readyHTTP != "" {
		closeServer, err := serveReadiness(f.readyHTTP, s.endpoint)
		if err != nil {
			s.abort()
			return err
		}
		defer closeServer()
	}
	if len(command) == 0 {
		return s.runUntilSignal(ctx, signals)
	}
	s.out = a.stderr // stdout is the command's
	return s.runCommand(ctx, command, signals)
}

// registerSession keeps one endpoint registered.
type registerSession struct {
	a         *app
	client    *clientv3.Client
	registrar *rollcall.Registrar
	endpoint  *healthcheck.Endpoint
	entry     entry
	drain     time.Duration // how long clients have to move at the end
	checked   bool          // there is a check
	until     time.Time     // when the endpoint must be registered, unless it has a check
	out       io.Writer
}

// prepare makes what keeps the endpoint.
func (s *registerSession) prepare(ctx context.Context, f registerFlags) error {
	if !f.force {
		if err := s.refuseUnleased(ctx); err != nil {
			return err
		}
	}
	directory, err := rollcall.SharedDirectory(s.client)
	if err != nil {
		return err
	}
	if s.registrar, err = rollcall.NewRegistrar(directory, f.registrarOptions()); err != nil {
		return err
	}
	f.options.Registrar = s.registrar
	if s.checked {
		f.options.Report = func(e healthcheck.Event) { s.a.say("%v", e) }
	}
	if s.endpoint, err = healthcheck.New(f.options); err != nil {
		s.abort()
	}
	return err
}

// refuseUnleased fails if the key is there without a lease: an operator has put it, to stay, and it
// would go with this process. Where the key may not be read, registering tells.
func (s *registerSession) refuseUnleased(ctx context.Context) error {
	resp, err := s.client.Get(ctx, s.entry.key()) // etcd 3.7 has no lease in keys alone
	if err != nil || len(resp.Kvs) == 0 || resp.Kvs[0].Lease != 0 {
		return nil
	}
	return fail(exitOther, "%q is there without a lease: somebody has put it to stay, by rollcall add for instance; "+
		"remove it, register under another --id, or take it over with --force", s.entry.key())
}

// runUntilSignal keeps the endpoint registered until a signal arrives or ctx ends. A second
// signal ends the process.
func (s *registerSession) runUntilSignal(ctx context.Context, signals chan os.Signal) error {
	running, stop := context.WithCancel(ctx)
	var signalled sync.WaitGroup
	signalled.Go(func() {
		defer stop()
		select {
		case <-signals:
			signal.Stop(signals)
		case <-running.Done():
		}
	})
	err := s.maintain(running)
	stop()
	signalled.Wait()
	if err != nil {
		s.abort()
		return err
	}
	superseded := errors.Is(s.endpoint.Status().State.Err, rollcall.ErrSuperseded)
	s.leave(context.WithoutCancel(ctx), "removing it")
	if err := s.deregister(ctx); err != nil {
		return err
	}
	if superseded {
		s.a.say("%q was left to the process that took it over", s.entry.key())
	} else {
		s.a.say("%q was removed", s.entry.key())
	}
	return nil
}

// maintain keeps the endpoint by its checks, prints it and reports changes of its state until ctx
// ends. Without a check it fails if the endpoint is not in etcd within the dial timeout.
func (s *registerSession) maintain(ctx context.Context) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var following sync.WaitGroup
	following.Go(func() {
		if err := s.follow(running); err != nil {
			stop(unlessCancelled(ctx, err))
		}
	})
	err := s.endpoint.Run(running)
	if err != nil {
		stop(err)
	}
	following.Wait()
	if err == nil && ctx.Err() == nil {
		err = context.Cause(running)
	}
	return err
}

// follow waits until the endpoint is registered, prints it and reports changes of its state.
func (s *registerSession) follow(ctx context.Context) error {
	reg, err := s.endpoint.Registration(ctx)
	if err != nil {
		return err
	}
	starting, cancel := ctx, context.CancelFunc(func() {})
	if !s.checked {
		starting, cancel = context.WithDeadline(ctx, s.until)
	}
	defer cancel()
	if err := s.awaitRegistered(starting, reg); err != nil {
		return err
	}
	lease, err := s.printRegistered(ctx, reg)
	if err != nil {
		return err
	}
	s.reportState(ctx, reg, rollcall.State{Phase: rollcall.Registered, Lease: lease})
	return nil
}

// unlessCancelled returns err, or nil if ctx has ended: the error is then its consequence.
func unlessCancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// awaitRegistered waits until a registration is in etcd. A lack of permission is an error, and so, without a
// check, is anything else that takes too long; with one, it is reported.
func (s *registerSession) awaitRegistered(ctx context.Context, reg *rollcall.Registration) error {
	for known := (rollcall.State{}); ; {
		state, changed := reg.State()
		switch {
		case state.Phase == rollcall.Registered, state.Phase == rollcall.Draining:
			return nil
		case notPermitted(state.Err), errors.Is(state.Err, rollcall.ErrClosed):
			return fmt.Errorf("register %q: %w", reg.Key(), state.Err)
		case s.checked:
			s.reportChange(reg, known, state)
		}
		known = state
		select {
		case <-changed:
		case <-ctx.Done():
			return reg.Wait(ctx) // its error names the cause
		}
	}
}

// printRegistered prints the endpoint as it is in etcd, and returns its lease. That it cannot be read ends nothing: it is
// registered.
func (s *registerSession) printRegistered(ctx context.Context, reg *rollcall.Registration) (clientv3.LeaseID, error) {
	reading, cancel := s.a.deadline(ctx)
	defer cancel()
	resp, err := s.client.Get(reading, reg.Key())
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		state, _ := reg.State()
		s.a.say("%q is registered, under lease %s, but cannot be read: %s", reg.Key(), inventory.LeaseText(state.Lease), plain(s.connectionCause(err)))
		return state.Lease, nil
	case len(resp.Kvs) == 0:
		return 0, fail(exitOther, "%q was removed as soon as it was registered", reg.Key())
	}
	inst, err := rollcall.Decode(resp.Kvs[0])
	if err != nil {
		return 0, fmt.Errorf("%q: %w", reg.Key(), err)
	}
	row := inventory.Of(inst, inventory.Under(s.entry.service))
	state, _ := reg.State()
	row.TTL = int64(state.TTL / time.Second)
	if s.a.json() {
		to := *s.a
		to.stdout = s.out
		return inst.Lease, to.printLine(newWritten(row))
	}
	_, err = fmt.Fprint(s.out, writtenTable(row))
	return inst.Lease, err
}

// reportState reports what becomes of a registration in etcd, from a state that is known, until ctx ends.
// What the checks find is reported before it is written, by the checks.
func (s *registerSession) reportState(ctx context.Context, reg *rollcall.Registration, known rollcall.State) {
	for {
		state, changed := reg.State()
		s.reportChange(reg, known, state)
		known = state
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *registerSession) reportChange(reg *rollcall.Registration, from, to rollcall.State) {
	if !alike(from, to) {
		to.Err = s.connectionCause(to.Err)
		s.a.say("%s", stateText(reg.Key(), to))
	}
}

// alike reports whether two states are the same to an operator. Failures of the connection differ in their
// text from one try to the next.
func alike(a, b rollcall.State) bool {
	cutOff := func(err error) bool { code := exitCode(err); return code == exitTimeout || code == exitUnreachable }
	return a.Phase == b.Phase && cutOff(a.Err) && cutOff(b.Err) || stateText("", a) == stateText("", b)
}

func stateText(key string, s rollcall.State) string {
	switch registered := s.Phase == rollcall.Registered || s.Phase == rollcall.Draining; {
	case errors.Is(s.Err, rollcall.ErrSuperseded):
		return fmt.Sprintf("%q was taken over by another process, under another lease; waiting until that one is gone", key)
	case s.Err != nil && registered:
		return fmt.Sprintf("%q is %s, but cannot be changed: %s; trying again", key, s.Phase, plain(s.Err))
	case s.Err != nil:
		return fmt.Sprintf("%q is not registered: %s; trying again", key, plain(s.Err))
	}
	return fmt.Sprintf("%q is %s, under lease %s", key, s.Phase, inventory.LeaseText(s.Lease))
}

// abort ends a registration that failed. If etcd does not answer, its key expires with the lease.
func (s *registerSession) abort() { s.registrar.Close() }

// deregister removes the endpoint, even if ctx has ended.
func (s *registerSession) deregister(ctx context.Context) error {
	ctx, cancel := s.a.deadline(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.registrar.Shutdown(ctx); err != nil {
		return fmt.Errorf("deregister %q, which etcd removes when its lease ends: %w", s.entry.key(), s.connectionCause(err))
	}
	return nil
}

// connectionCause returns the error of the connection in place of a timeout, if it has one.
func (s *registerSession) connectionCause(err error) error {
	if err == nil || !timedOut(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.a.dialTimeout/4)
	defer cancel()
	if cause := connectionError(ctx, s.client.ActiveConnection()); cause != nil {
		return cause
	}
	return err
}

// leave takes the endpoint out of new calls, gives clients time to move, and removes it. What comes next
// is for the message. When ctx ends, so does the wait. If etcd does not answer, clients cannot be told, and
// there is none.
func (s *registerSession) leave(ctx context.Context, next string) {
	if s.drain > 0 {
		draining, cancel := s.a.deadline(ctx)
		left, err := s.endpoint.Drain(draining, s.drain)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.a.say("%s; %s without waiting for clients to move", s.a.explain(s.connectionCause(err)), next)
			s.endpoint.Close()
			return
		case left > 0:
			s.a.say("%q is draining; %s in %v", s.entry.key(), next, left.Round(100*time.Millisecond))
			select {
			case <-time.After(left):
			case <-ctx.Done():
			}
		}
	}
	removing, cancel := s.a.deadline(ctx)
	defer cancel()
	_ = s.endpoint.Remove(removing) // deregister tries again, and reports
}
