// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// app holds what all commands share: streams, environment and settings.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) (string, bool)
	environ        []string               // NAME=value of all variables
	configDir      func() (string, error) // nil: there is none
	lookupSRV      func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)

	settings

	command *cobra.Command // that runs
	refused *denials       // what etcd refused the client; nil before it
}

const rootHelp = `rollcall shows, changes and follows what gRPC services have registered in etcd.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 etcd unreachable,
5 not permitted, 6 timed out, 130 and 143 interrupted. doctor has 10 for
warnings and 11 for errors; register ends with the code of its command.

Global flags can be set in the environment: ROLLCALL_ENDPOINTS and so on, or else
etcdctl's ETCDCTL_ENDPOINTS and so on; rollcall help etcdctl has what differs from etcdctl,
and more flags. Settings of several clusters can be kept as contexts: see rollcall context.`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "rollcall",
		Short:         "gRPC naming and discovery on etcd",
		Long:          rootHelp,
		Example:       "  rollcall demo\n  rollcall add my-service 10.0.0.7:50051\n  rollcall watch my-service",
		Version:       readVersion().Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.command = cmd
			if cmd.Name() == cobra.ShellCompRequestCmd {
				return nil // completionKeys takes the settings of the command that is completed
			}
			return a.prepare(cmd)
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(flagError)
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		describeOutput(cmd)
		help(cmd, args)
	})
	a.addFlags(root.PersistentFlags())
	group(root, "look", "Look:", newLs(a), newGet(a), newWatch(a), newTop(a), newHistory(a), newResolve(a), newExport(a), newWait(a), newPing(a), newStatus(a), newDoctor(a))
	group(root, "change", "Change:", newAdd(a), newRm(a), newRegister(a), newDrain(a), newUndrain(a), newWeight(a), newMv(a), newConfig(a), newImport(a))
	group(root, "operate", "Operate:", newAgent(a), newServe(a), newXDS(a), newRoles(a), newContext(a))
	group(root, "try", "Try:", newDemo(a), newDev(a))
	root.SetHelpCommand(newHelp())
	group(root, "other", "Other:", newVersion(a), newCompletion())
	root.SetHelpCommandGroupID("other")
	root.AddCommand(newDemoServer(a), newEtcdctlTopic(), newMan(a))
	a.complete(root)
	return root
}

// group adds commands to root under a title in the help.
func group(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = id
	}
	root.AddCommand(commands...)
}

// unknownCommand fails for a name that is not a command of its parent, and suggests similar ones.
func unknownCommand(parent *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, cmd := range parent.Commands() {
		if cmd.IsAvailableCommand() {
			names = append(append(names, cmd.Name()), cmd.Aliases...)
		}
	}
	return fail(exitUsage, "unknown command %q%s; see %s --help", args[0], didYouMean(args[0], names), parent.CommandPath())
}

// offline reports whether a command has nothing to do with the etcd of the settings.
func offline(cmd *cobra.Command) bool {
	for ; cmd.HasParent(); cmd = cmd.Parent() {
		if slices.Contains([]string{"help", "version", "completion", "man", "context", "dev", "demo"}, cmd.Name()) {
			return true
		}
	}
	return false
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show how to use a command",
		Example: "  rollcall help register",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				return unknownCommand(about, rest)
			}
			if err != nil {
				return unknownCommand(cmd.Root(), args)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// run executes a command line and returns the exit code. Data goes to stdout, an error to
// stderr, in one line. The end by a signal is not reported.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var sig signalError
	if cancelled(err) && errors.As(context.Cause(ctx), &sig) {
		err = sig
	}
	if err != nil && !isSignal(err) && !silent(err) {
		a.say("%s", a.explain(err))
	}
	return exitCode(err)
}

// say writes one line to stderr: a message, never data.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, "rollcall: %s\n", safe(oneLine(fmt.Sprintf(format, args...))))
}

// deadline bounds a command's calls to etcd.
func (a *app) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.patience())
}

// patience is how long etcd may take for a command's calls.
func (a *app) patience() time.Duration { return a.dialTimeout + a.commandTimeout }
