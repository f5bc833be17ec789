// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/top"
)

func newTop(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "top [SERVICE|PREFIX]",
		Short: "Watch services live on a terminal",
		Long: "top shows the services whose keys start with PREFIX, or all, and what comes, changes and\n" +
			"goes while it does; enter opens one. It opens SERVICE at once; SERVICE/ asks etcd for the\n" +
			"keys of that one alone, as a user without rights on others must. ? lists the keys: search,\n" +
			"sort, drain and undrain. While etcd is unreachable, a banner says since when and why.\n\n" +
			"It needs a terminal; elsewhere see rollcall watch and rollcall ls. NO_COLOR turns colours off.",
		Example: "  rollcall top\n  rollcall top team-a/\n  rollcall top my-service",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.top(cmd.Context(), strings.Join(args, ""))
		},
	}
}

func (a *app) top(ctx context.Context, prefix string) error {
	if kind, _ := a.getenv("TERM"); !isTerminal(a.stdin) || !isTerminal(a.stdout) || kind == "dumb" {
		return fail(exitUsage, "top needs a terminal to draw on; to follow a service line by line, see rollcall watch; to list services, rollcall ls")
	}
	noColor, _ := a.getenv("NO_COLOR")
	subscribe := func(dir *rollcall.Directory) (*rollcall.Subscription, error) { return dir.SubscribePrefix(prefix) }
	err := a.follow(ctx, fmt.Sprintf("keys under %q", prefix), subscribe, func(dir *rollcall.Directory, sub *rollcall.Subscription, snap *rollcall.Snapshot) error {
		return top.Run(ctx, top.Terminal{In: a.stdin, Out: a.stdout}, dir, sub, snap, top.Options{Prefix: prefix, Color: noColor == "",
			Mark: func(service, id string, drain bool) error { return a.mark(ctx, dir.Client(), service, id, drain) }})
	})
	if grant := a.grant(); grant != "" && !notPermitted(err) {
		a.say("%s", grant) // the last refusal, which the screen has cut
	}
	if errors.Is(err, top.ErrInterrupted) {
		return signalError{syscall.SIGINT} // typed as a key, where the terminal makes no signal of it
	}
	return err
}

// mark drains an endpoint or ends that, as rollcall drain and undrain do.
func (a *app) mark(ctx context.Context, client *clientv3.Client, service, id string, drain bool) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	var value any
	var check edit.Check
	if drain {
		value, check = rollcall.StatusDraining, keepServing
	}
	_, err := change(ctx, client, service, edit.WithID(id), check, edit.SetField("status", value))
	if grant := a.grant(); notPermitted(err) && grant != "" {
		return errors.New(grant)
	}
	return err
}
