// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
)

// registerFlags are the flags of register.
type registerFlags struct {
	endpointFlags
	addr      string
	noOrigin  bool
	force     bool
	drain     time.Duration
	readyHTTP string
	checks    []string
	options   healthcheck.Options // interval, timeout, fall and rise
}

const registerLong = `register keeps an endpoint in etcd under a lease until it is interrupted, then removes it and
exits with 0. With a COMMAND it starts the command, registers the endpoint, removes it when the
command has ended and exits with its code (128+n after signal n; 127 or 126 if it cannot be
started). If etcd is unreachable at the start, the exit code is 4 and the command is not started;
after that, register waits until etcd is back. If the process dies, the endpoint stays until its
lease expires (--ttl). On Linux, if register is killed, the COMMAND gets SIGTERM.

--check has the endpoint registered once the check passes, marked as draining after --fall failures
in a row, so that clients send it no new calls, and put back after --rise successes; if given
several times, all must pass. One that keeps changing is put back later each time, after up to
5m, so that it is written at most 10 times a minute. What an operator has drained stays drained.

  grpc[:SERVICE]         the server's grpc.health.v1 says SERVING
  tcp                    the server accepts a connection
  http://HOST:PORT/PATH  the status is from 200 to 399; redirects are not followed
  exec:COMMAND           the command, run by sh, exits with 0; it is killed at --timeout, and what
                         it leaves running when it ends

They ask at --addr. grpc://HOST:PORT/SERVICE and tcp://HOST:PORT ask elsewhere, and a URL may leave
its host, or host and port, to --addr: http://:8080/healthz, http:///healthz. grpcs and https use
TLS and accept any certificate. The credentials for etcd (ROLLCALL_USER, _PASSWORD, _PASSWORD_FILE and
_AUTH_JWT_TOKEN, and ETCDCTL's) are not in the environment of exec: checks, nor of the COMMAND.

On SIGTERM and SIGINT the endpoint is marked as draining, and removed after --drain; then the
COMMAND gets the signal. A second one is passed on at once, in place of the first, as are SIGHUP,
SIGQUIT, SIGUSR1 and SIGUSR2; Ctrl-C and Ctrl-\ the terminal sends to both. Under systemd, set
KillMode=mixed, or the COMMAND gets SIGTERM at once. As process 1 of a container, rollcall reaps
orphaned processes.

--addr :PORT advertises the address that this host uses towards etcd, and says which that is.
--ready-http serves /readyz, which answers 200 while the endpoint takes calls, and otherwise 503 with
the reason, of checks their kind alone; and /livez, which always answers 200. Without a host, as in
:8081, it listens on all addresses, as probes of Kubernetes need it. Once registered, an outage of
etcd does not make it unready.`

func newRegister(a *app) *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register SERVICE --addr HOST:PORT [-- COMMAND ARGS...]",
		Short: "Keep an endpoint registered, for as long as a command runs",
		Long:  registerLong,
		Example: "  rollcall register my-service --addr 10.0.0.7:50051\n" +
			"  rollcall register my-service --addr 10.0.0.7:50051 --ttl 5s -- ./my-server --port 50051\n" +
			"  rollcall register my-service --addr :50051 --check grpc -- python3 server.py\n" +
			"  rollcall register my-service --addr :50051 --check tcp --check 'exec:test ! -e /tmp/out' \\\n" +
			"    --interval 2s --drain 10s --ready-http :8081 -- ./my-server --port 50051",
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			return registerArgs(args, cmd.ArgsLenAtDash())
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			command := args[1:]
			for _, name := range []string{"interval", "timeout", "fall", "rise"} {
				if len(f.checks) == 0 && cmd.Flags().Changed(name) {
					return fail(exitUsage, "--%s needs a --check, such as --check tcp", name)
				}
			}
			if len(command) == 0 && !cmd.Flags().Changed("drain") {
				f.drain = 0
			}
			e, err := f.parse(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			return a.register(cmd.Context(), f, e, command)
		},
	}
	f.add(cmd)
	return cmd
}

func (f *registerFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.endpointFlags.add(flags)
	flags.StringVar(&f.addr, "addr", "", "where clients reach the service, HOST:PORT; :PORT finds the host")
	flags.DurationVar(&f.ttl, "ttl", 10*time.Second, "how long the endpoint stays if this process dies; whole seconds")
	flags.BoolVar(&f.noOrigin, "no-origin", false, "leave \"started\" and \"host\" out of the metadata: when and where this process began")
	flags.BoolVar(&f.force, "force", false, "take over a key that somebody has put without a lease")
	flags.StringArrayVar(&f.checks, "check", nil, "what must pass: grpc, tcp, http://HOST:PORT/PATH or exec:COMMAND; repeatable")
	flags.DurationVar(&f.options.Interval, "interval", healthcheck.DefaultInterval, "from the start of a check to the next; at most 1s until registered")
	flags.DurationVar(&f.options.Timeout, "timeout", healthcheck.DefaultTimeout, "time within which a check must pass")
	flags.IntVar(&f.options.Fall, "fall", healthcheck.DefaultFall, "failures in a row that take the endpoint out")
	flags.IntVar(&f.options.Rise, "rise", healthcheck.DefaultRise, "successes in a row that put the endpoint in")
	flags.DurationVar(&f.drain, "drain", 5*time.Second, "how long clients have to move at the end; without a COMMAND, 0s unless given")
	flags.StringVar(&f.readyHTTP, "ready-http", "", "HOST:PORT or :PORT to serve /readyz and /livez on")
}

// parse checks the flags, without asking etcd, and completes those that need this host's address.
func (f *registerFlags) parse(ctx context.Context, a *app, service string) (e entry, err error) {
	if f.addr == "" {
		return e, fail(exitUsage, "--addr is missing: where clients reach the service, such as --addr 10.0.0.7:50051")
	}
	if f.addr, err = a.completeAddr(ctx, f.addr); err != nil {
		return e, err
	}
	if e, err = f.endpointFlags.parse(service, f.addr); err != nil {
		return e, err
	}
	if err := checkTTL(f.ttl); err != nil {
		return e, err
	}
	if f.drain < 0 {
		return e, fail(exitUsage, "--drain %v: must not be negative; 0s does not wait", f.drain)
	}
	f.options.Service, f.options.Endpoint = e.service, e.ep
	for _, text := range f.checks {
		check, err := healthcheck.Parse(text, f.addr)
		if err != nil {
			return e, fail(exitUsage, "--%v", err)
		}
		f.options.Checks = append(f.options.Checks, check)
	}
	if wrong := (*rollcall.InputError)(nil); errors.As(f.options.Validate(), &wrong) {
		return e, fail(exitUsage, "--%s %s: %s", wrong.Field, wrong.Value, wrong.Reason)
	}
	a.warn(e)
	return e, nil
}

// registrarOptions are what the flags ask of the Registrar.
func (f *registerFlags) registrarOptions() rollcall.RegistrarOptions {
	return rollcall.RegistrarOptions{TTL: f.ttl, NoOrigin: f.noOrigin}
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
