// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/agent"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

const agentHelp = `agent keeps the endpoints of a file registered, each while its checks pass: for servers that
do not register themselves. A server whose checks fail is marked as draining, and returns when they
pass. The file is YAML:

  interval: 5s                      # these five are the defaults, for all services;
  timeout: 1s                       # each service may have its own
  fall: 3                           # failures in a row that take a server out
  rise: 2                           # successes in a row that bring it back
  ttl: 10s                          # how long endpoints stay if the agent dies
  services:
  - service: my-service
    address: 10.0.0.7:50051
    id: blue                        # default: the address
    metadata: {weight: 10, zone: eu-1}
    checks: [grpc, "http://:8080/healthz"]     # all must pass; see rollcall register --help

The file is read again when it changes and on SIGHUP. Only what differs is touched; a file with an
error changes nothing. On SIGINT and SIGTERM all endpoints drain for --drain and are removed. If the
agent dies, its endpoints stay until their leases end.

When every check fails, of at least three addresses, it is most likely the agent's own network: no
endpoint is taken out then, unless the file says "selfPreservation: false".

The agent starts while etcd is down, and goes on trying. It tells systemd (Type=notify) when it is
ready, and answers "rollcall agent status" on a unix socket: agent.sock in $RUNTIME_DIRECTORY (which
systemd sets), or in /run/rollcall for root, or else in $XDG_RUNTIME_DIR/rollcall.`

func newAgent(a *app) *cobra.Command {
	var opts agent.Options
	cmd := &cobra.Command{
		Use:   "agent -f FILE",
		Short: "Keep the endpoints of a file registered while their checks pass",
		Long:  agentHelp,
		Example: "  rollcall agent -f services.yaml\n" +
			"  rollcall agent validate -f services.yaml\n" +
			"  rollcall agent status",
		Args: usageArgs(unknownCommand),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Drain < 0 {
				return fail(exitUsage, "--drain %v: must not be negative", opts.Drain)
			}
			return a.agent(cmd.Context(), opts)
		},
	}
	addFile(cmd.Flags(), &opts.File)
	addSocket(cmd.Flags(), &opts.Socket)
	cmd.Flags().DurationVar(&opts.Drain, "drain", 5*time.Second, "how long clients are given to leave an endpoint before it is removed")
	cmd.AddCommand(newAgentStatus(a), newAgentValidate(a))
	return cmd
}

func addFile(flags *pflag.FlagSet, path *string) {
	flags.StringVarP(path, "file", "f", "", "the services file, required")
	markFiles(flags, "file")
}

func addSocket(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "socket", "", "the agent's unix socket (default: agent.sock in a directory of /run)")
	markFiles(flags, "socket")
}

// agentSocket returns the path of the agent's socket, if none is given.
func (a *app) agentSocket(given string) (string, error) {
	runtime, _ := a.getenv("RUNTIME_DIRECTORY")
	user, _ := a.getenv("XDG_RUNTIME_DIR")
	switch {
	case given != "":
		return given, nil
	case runtime != "":
		return filepath.Join(runtime, "agent.sock"), nil
	case os.Getuid() == 0:
		return "/run/rollcall/agent.sock", nil
	case user != "":
		return filepath.Join(user, "rollcall", "agent.sock"), nil
	}
	return "", fail(exitUsage, "--socket is missing: there is no $XDG_RUNTIME_DIR to have it in; "+
		"give a path in a directory that is yours alone, such as --socket ~/.rollcall/agent.sock")
}

var errNoFile = fail(exitUsage, "--file is missing: the services file, such as -f services.yaml")

// refuseServices returns the error for a services file that cannot be used. All that is wrong with it is said, a
// line for each.
func (a *app) refuseServices(path string, err error) error {
	var wrong *agent.FileError
	if !errors.As(err, &wrong) {
		return fail(exitUsage, "--file: %v", err)
	}
	for _, err := range wrong.Wrong {
		a.say("%s: %s", path, plain(err))
	}
	return &exitError{code: exitUsage}
}

func (a *app) agent(ctx context.Context, opts agent.Options) error {
	if opts.File == "" {
		return errNoFile
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	opts.Reload, opts.Getenv, opts.Log = reload, a.getenv, slog.New(slog.NewTextHandler(a.stderr, nil))
	var err error
	if opts.Socket, err = a.agentSocket(opts.Socket); err != nil {
		return err
	}
	keeper, err := agent.New(opts)
	if err != nil {
		return a.refuseServices(opts.File, err)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	directory, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{Logger: opts.Log})
	if err != nil {
		return err
	}
	defer directory.Close()
	err = keeper.Run(ctx, directory)
	if errors.Is(err, agent.ErrRunning) {
		return fail(exitOther, "%v; stop that one, or give this one another --socket", err)
	}
	return err
}

func newAgentValidate(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:     "validate -f FILE",
		Short:   "Check a services file, without etcd or an agent",
		Long:    "validate reads a services file as the agent would. It says all that is wrong, a line for each, and\nexits with 2 then.",
		Example: "  rollcall agent validate -f services.yaml",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if path == "" {
				return errNoFile
			}
			config, err := agent.Load(path)
			if err != nil {
				return a.refuseServices(path, err)
			}
			return a.write(fmt.Sprintf("%s is valid: %s\n", safe(path), plural.Count(len(config.Services), "endpoint", "endpoints")))
		},
	}
	addFile(cmd.Flags(), &path)
	return cmd
}
