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

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func newRegister(a *app) *cobra.Command {
	var flags endpointFlags
	var addr string
	var noOrigin bool
	cmd := &cobra.Command{
		Use:   "register SERVICE --addr HOST:PORT [-- COMMAND ARGS...]",
		Short: "Keep an endpoint registered, for as long as a command runs",
		Long: "register keeps an endpoint in etcd under a lease until it is interrupted, then removes it\n" +
			"and exits with 0. With a COMMAND it starts the command and registers the endpoint,\n" +
			"forwards SIGINT, SIGTERM and SIGHUP, removes the endpoint when the command has ended and\n" +
			"exits with its code (128+n after signal n; 127 or 126 if it cannot be started). If etcd\n" +
			"is unreachable at the start, the exit code is 4 and the command is not started; after\n" +
			"that, register waits until etcd is back. If the process dies, the endpoint stays until\n" +
			"its lease expires (--ttl). On Linux, if register is killed, the COMMAND gets SIGTERM.",
		Example: "  rollcall register my-service --addr 10.0.0.7:50051\n" +
			"  rollcall register my-service --addr 10.0.0.7:50051 --ttl 5s -- ./my-server --port 50051",
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			return registerArgs(args, cmd.ArgsLenAtDash())
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if addr == "" {
				return fail(exitUsage, "--addr is missing: where clients reach the service, such as --addr 10.0.0.7:50051")
			}
			e, err := flags.parse(args[0], addr)
			if err != nil {
				return err
			}
			if err := checkTTL(flags.ttl); err != nil {
				return err
			}
			a.warn(e)
			return a.register(cmd.Context(), e, rollcall.RegistrarOptions{TTL: flags.ttl, NoOrigin: noOrigin}, args[1:])
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVar(&addr, "addr", "", "where clients reach the service, HOST:PORT")
	cmd.Flags().DurationVar(&flags.ttl, "ttl", 10*time.Second, "how long the endpoint stays if this process dies; whole seconds")
	cmd.Flags().BoolVar(&noOrigin, "no-origin", false, "leave \"started\" and \"host\" out of the metadata: when and where this process began")
	return cmd
}

// registerArgs checks the arguments. The "--" was before args[dash]; dash is -1 without one.
func registerArgs(args []string, dash int) error {
	switch {
	case len(args) == 0 || dash == 0:
		return errors.New("the service is missing")
	case dash < 0 && len(args) > 1, dash > 1:
		return errors.New("too many arguments; the command goes after --")
	case dash == len(args):
		return errors.New("no command after --")
	}
	return nil
}

func (a *app) register(ctx context.Context, e entry, opts rollcall.RegistrarOptions, command []string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	signals := make(chan os.Signal, 8)
	handled := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		handled = append(handled, syscall.SIGHUP)
	}
	signal.Notify(signals, handled...)
	defer signal.Stop(signals)
	until := time.Now().Add(a.dialTimeout)
	starting, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if err := connect(starting, client); err != nil {
		return err
	}
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return err
	}
	registrar, err := rollcall.NewRegistrar(directory, opts)
	if err != nil {
		return err
	}
	s := &registerSession{a: a, client: client, registrar: registrar, entry: e, until: until, out: a.stdout}
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
	entry     entry
	until     time.Time // when the endpoint must be registered
	out       io.Writer
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
	if err := s.deregister(ctx); err != nil {
		return err
	}
	s.a.say("%q was removed", s.entry.key())
	return nil
}

// maintain registers the endpoint, prints it and reports changes of its state until ctx ends.
// It fails if the endpoint is not in etcd within the dial timeout.
func (s *registerSession) maintain(ctx context.Context) error {
	starting, cancel := context.WithDeadline(ctx, s.until)
	defer cancel()
	reg, err := s.registrar.Register(s.entry.service, s.entry.ep)
	if err != nil {
		return err
	}
	if err := awaitRegistered(starting, reg); err != nil {
		return unlessCancelled(ctx, err)
	}
	if err := s.printRegistered(starting, reg); err != nil {
		return unlessCancelled(ctx, err)
	}
	s.reportState(ctx, reg)
	return nil
}

// unlessCancelled returns err, or nil if ctx has ended: the error is then its consequence.
func unlessCancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// awaitRegistered waits until a registration is in etcd. A lack of permission is an error.
func awaitRegistered(ctx context.Context, reg *rollcall.Registration) error {
	for {
		state, changed := reg.State()
		switch {
		case state.Phase == rollcall.Registered, state.Phase == rollcall.Draining:
			return nil
		case notPermitted(state.Err), errors.Is(state.Err, rollcall.ErrClosed):
			return fmt.Errorf("register %q: %w", reg.Key(), state.Err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return reg.Wait(ctx) // its error names the cause
		}
	}
}

// printRegistered prints the endpoint as it is in etcd.
func (s *registerSession) printRegistered(ctx context.Context, reg *rollcall.Registration) error {
	resp, err := s.client.Get(ctx, reg.Key())
	if err != nil {
		return fmt.Errorf("read %q: %w", reg.Key(), err)
	}
	if len(resp.Kvs) == 0 {
		return fail(exitOther, "%q was removed as soon as it was registered", reg.Key())
	}
	inst, err := rollcall.Decode(resp.Kvs[0])
	if err != nil {
		return fmt.Errorf("%q: %w", reg.Key(), err)
	}
	row := inventory.Of(inst, inventory.Under(s.entry.service))
	state, _ := reg.State()
	row.TTL = int64(state.TTL / time.Second)
	if s.a.json() {
		to := *s.a
		to.stdout = s.out
		return to.printLine(newWritten(row))
	}
	_, err = fmt.Fprint(s.out, writtenTable(row))
	return err
}

// reportState reports changes of a registration's state until ctx ends.
func (s *registerSession) reportState(ctx context.Context, reg *rollcall.Registration) {
	reported := ""
	for {
		state, changed := reg.State()
		state.Err = s.connectionCause(state.Err)
		text := stateText(reg.Key(), state)
		if text != reported && (reported != "" || state.Phase != rollcall.Registered) {
			s.a.say("%s", text)
		}
		reported = text
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func stateText(key string, s rollcall.State) string {
	switch {
	case errors.Is(s.Err, rollcall.ErrSuperseded):
		return fmt.Sprintf("%q was taken over by another process, under another lease; waiting until that one is gone", key)
	case s.Err != nil:
		return fmt.Sprintf("%q is not registered: %s; trying to register it again", key, plain(s.Err))
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
