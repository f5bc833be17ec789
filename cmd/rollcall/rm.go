// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

type deletion struct {
	APIVersion   string `json:"apiVersion"`
	Kind         string `json:"kind"`
	DryRun       bool   `json:"dryRun"`
	Revision     int64  `json:"revision"` // of the last transaction; of a dry run, at which it looked
	Transactions int    `json:"transactions"`
	keyList
}

func newRm(a *app) *cobra.Command {
	var all bool
	var r removal
	var which selection
	cmd := &cobra.Command{
		Use:     "rm SERVICE ID|HOST:PORT...",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove endpoints",
		Long: "rm deletes the key SERVICE/ID or, if there is none, every endpoint of SERVICE with that\n" +
			"address. Up to " + strconv.Itoa(edit.MaxKeys) + " are removed in one transaction, all or none; a larger change takes several.\n" +
			"With --all, whatever is under SERVICE/ is removed.\n\n" +
			selectorHelp + "\n" +
			"--dry-run writes nothing and shows what would be removed.\n\n" +
			"An id that cannot be printed may be given as rollcall get shows it, such as 'a\\xff'. A server\n" +
			"that is still running registers again: stop it instead. If there is nothing to remove, the\n" +
			"exit code is 3.\n\n" +
			"Before a service, or one within it, is left without an endpoint, or without one that is serving,\n" +
			"rm asks on a terminal, and elsewhere wants --yes.",
		Example: "  rollcall rm my-service blue-1\n  rollcall rm my-service 10.0.0.7:50051\n  rollcall rm my-service -l version=v1 --dry-run\n  rollcall rm my-service -l version=v1\n  rollcall rm my-service --all --yes",
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(which.selectors) > 0:
				return errors.New("--all removes all endpoints of a service, --selector some: give one of them")
			case all && len(args) == 1:
				return nil
			case all:
				return errors.New("--all removes all endpoints of one service: give its name alone")
			}
			return which.args()(cmd, args)
		}),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.service, r.find, err = which.parseForWrite(args); err != nil {
				return err
			}
			if all {
				r.find = edit.Everything
			}
			return a.confirmed(cmd.Context(), r.yes, func(yes bool) error {
				r.yes = yes
				return a.talk(cmd.Context(), func(ctx context.Context, client *clientv3.Client) error {
					if r.dryRun {
						return a.previewRemoval(ctx, client, r)
					}
					return a.remove(ctx, client, r)
				})
			})
		},
	}
	which.addFlag(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "remove all keys under SERVICE/")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "write nothing; show what would be removed")
	addYes(cmd.Flags(), &r.yes)
	return cmd
}

// removal is what rm is to do.
type removal struct {
	service     string
	find        edit.Finder
	yes, dryRun bool
}

// previewRemoval shows what a removal would remove.
func (a *app) previewRemoval(ctx context.Context, client *clientv3.Client, r removal) error {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return err
	}
	snap, err := list(ctx, dir, r.service)
	if err != nil {
		return err
	}
	keys, err := r.find(snap)
	if err != nil {
		return notFound(ctx, client, err)
	}
	if _, err := edit.KeepOne(snap, keys); err != nil {
		a.say("%v", err)
	}
	return a.printRemoved(keys, deletion{DryRun: true, Revision: snap.Revision()})
}

func (a *app) remove(ctx context.Context, client *clientv3.Client, r removal) error {
	check := edit.KeepOne
	if r.yes {
		check = nil
	}
	done, err := change(ctx, client, r.service, r.find, check, func(k edit.Key) (clientv3.Op, error) {
		return clientv3.OpDelete(k.Key), nil
	})
	if err != nil && len(done.Written) == 0 {
		return err
	}
	keys := make([]edit.Key, 0, len(done.Written))
	for _, w := range done.Written {
		keys = append(keys, w.Key)
	}
	return cmp.Or(a.printRemoved(keys, deletion{Revision: done.Revision, Transactions: done.Transactions}), err)
}

// printRemoved prints the keys that were removed, or would be.
func (a *app) printRemoved(removed []edit.Key, d deletion) error {
	keys := make([]string, 0, len(removed))
	for _, k := range removed {
		keys = append(keys, k.Key)
	}
	title := "REMOVED"
	if d.DryRun {
		title = "KEY"
		a.say("%s would be removed: this is a dry run", plural.Count(len(keys), "key", "keys"))
	}
	a.sayDivided(d.Transactions)
	if slices.ContainsFunc(removed, func(k edit.Key) bool { return k.Lease != 0 }) {
		a.say("what is under a lease comes back if its server is still running")
	}
	if a.json() {
		d.APIVersion, d.Kind, d.keyList = apiVersion, "Deletion", listOf(keys)
		return a.printJSON(d)
	}
	rows := [][]string{{title}}
	for _, key := range keys {
		rows = append(rows, []string{key})
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
