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
)

func newRegister(a *app) *cobra.Command {
	var flags endpointFlags
	var addr string
	cmd := &cobra.Command{
		Use:   "register SERVICE --addr HOST:PORT [-- COMMAND ARGS...]",
		Short: "Keep an endpoint registered, for as long as a command runs",
		Long: "register keeps an endpoint in etcd under a lease until it is interrupted, then takes\n" +
			"it out and exits with 0. With a COMMAND it starts that, registers it, passes SIGINT,\n" +
			"SIGTERM and SIGHUP on, takes the endpoint out when the command has ended and exits with\n" +
			"its code (128+n after signal n; 127 and 126 where it cannot be started). If etcd cannot\n" +
			"be had at the start it exits with 4 and the command is not started; later failures of\n" +
			"etcd are waited out. A process that dies stays listed until its lease ends: --ttl. On\n" +
			"Linux the COMMAND gets SIGTERM when register itself is killed, rather than run on unlisted.",
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
			return a.register(cmd.Context(), e, flags.ttl, args[1:])
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVar(&addr, "addr", "", "where clients reach the service, HOST:PORT")
	cmd.Flags().DurationVar(&flags.ttl, "ttl", 10*time.Second, "how long it stays listed when this process dies; whole seconds")
	return cmd
}

// registerArgs checks the arguments around "--", which stood before args[dash]; -1
// where there was none.
func registerArgs(args []string, dash int) error {
	switch {
	case len(args) == 0 || dash == 0:
		return errors.New("the service is missing")
	case dash < 0 && len(args) > 1, dash > 1:
		return errors.New("more than a service is given; the command stands after --")
	case dash == len(args):
		return errors.New("no command stands after --")
	}
	return nil
}

func (a *app) register(ctx context.Context, e entry, ttl time.Duration, command []string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	signals := make(chan os.Signal, 8)
	hears := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		hears = append(hears, syscall.SIGHUP)
	}
	signal.Notify(signals, hears...)
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
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{TTL: ttl})
	if err != nil {
		return err
	}
	d := &desk{a: a, client: client, registrar: registrar, entry: e, until: until, out: a.stdout}
	if len(command) == 0 {
		return d.attend(ctx, signals)
	}
	d.out = a.stderr // the command's output stays its own
	return d.accompany(ctx, command, signals)
}

// desk keeps one endpoint registered.
type desk struct {
	a         *app
	client    *clientv3.Client
	registrar *rollcall.Registrar
	entry     entry
	until     time.Time // registered by then, or not at all
	out       io.Writer
}

// attend keeps the endpoint until a signal comes or the context ends. A second signal
// ends the process, endpoint or not.
func (d *desk) attend(ctx context.Context, signals chan os.Signal) error {
	keeping, stop := context.WithCancel(ctx)
	var signalled sync.WaitGroup
	signalled.Go(func() {
		defer stop()
		select {
		case <-signals:
			signal.Stop(signals)
		case <-keeping.Done():
		}
	})
	err := d.keep(keeping)
	stop()
	signalled.Wait()
	if err != nil {
		d.abandon()
		return err
	}
	if err := d.leave(ctx); err != nil {
		return err
	}
	d.a.say("%q is taken out", d.entry.key())
	return nil
}

// keep registers the endpoint, says so, and tells what becomes of it until the context
// ends. It fails if the endpoint is not in etcd within the dial time-out.
func (d *desk) keep(ctx context.Context) error {
	starting, cancel := context.WithDeadline(ctx, d.until)
	defer cancel()
	reg, err := d.registrar.Register(d.entry.service, d.entry.ep)
	if err != nil {
		return err
	}
	if err := settled(starting, reg); err != nil {
		return unlessEnded(ctx, err)
	}
	if err := d.announce(starting, reg); err != nil {
		return unlessEnded(ctx, err)
	}
	d.follow(ctx, reg)
	return nil
}

// unlessEnded drops an error that comes of being told to stop.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// settled waits until a registration is in etcd. It does not wait for rights to come.
func settled(ctx context.Context, reg *rollcall.Registration) error {
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
			return reg.Wait(ctx) // which says what it waited for
		}
	}
}

// announce prints what etcd holds now.
func (d *desk) announce(ctx context.Context, reg *rollcall.Registration) error {
	resp, err := d.client.Get(ctx, reg.Key())
	if err != nil {
		return fmt.Errorf("look up %q: %w", reg.Key(), err)
	}
	if len(resp.Kvs) == 0 {
		return fail(exitOther, "%q was removed as soon as it was registered", reg.Key())
	}
	inst, err := rollcall.Decode(resp.Kvs[0])
	if err != nil {
		return fmt.Errorf("%q: %w", reg.Key(), err)
	}
	row := renderInstance(inst, of(d.entry.service))
	state, _ := reg.State()
	row.TTL = int64(state.TTL / time.Second)
	if d.a.json() {
		to := *d.a
		to.stdout = d.out
		return to.printLine(newWritten(row))
	}
	_, err = fmt.Fprint(d.out, writtenTable(row))
	return err
}

// follow tells what becomes of a registration until the context ends.
func (d *desk) follow(ctx context.Context, reg *rollcall.Registration) {
	told := ""
	for {
		state, changed := reg.State()
		state.Err = d.underlying(state.Err)
		text := stateText(reg.Key(), state)
		if text != told && (told != "" || state.Phase != rollcall.Registered) {
			d.a.say("%s", text)
		}
		told = text
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
		return fmt.Sprintf("%q belongs to another process now, under another lease; waiting until that is gone", key)
	case s.Err != nil:
		return fmt.Sprintf("%q is lost: %s; putting it back", key, plain(s.Err))
	}
	return fmt.Sprintf("%q is %s, under lease %s", key, s.Phase, leaseText(s.Lease))
}

// abandon leaves nothing behind of a registration that failed: what cannot be deleted goes
// with the lease.
func (d *desk) abandon() { d.registrar.Close() }

// leave takes the endpoint out, whatever ended the context.
func (d *desk) leave(ctx context.Context) error {
	ctx, cancel := d.a.deadline(context.WithoutCancel(ctx))
	defer cancel()
	if err := d.registrar.Shutdown(ctx); err != nil {
		return fmt.Errorf("deregister %q, which etcd drops when its lease ends: %w", d.entry.key(), d.underlying(err))
	}
	return nil
}

// underlying is the connection's own error where etcd was waited for in vain.
func (d *desk) underlying(err error) error {
	if err == nil || !timedOut(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.a.dialTimeout/4)
	defer cancel()
	if cause := connectionError(ctx, d.client.ActiveConnection()); cause != nil {
		return cause
	}
	return err
}
