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
)

type deletion struct {
	APIVersion   string `json:"apiVersion"`
	Kind         string `json:"kind"`
	Revision     int64  `json:"revision"` // of the last transaction
	Transactions int    `json:"transactions"`
	keyList
}

func newRm(a *app) *cobra.Command {
	var all, yes bool
	var which selection
	cmd := &cobra.Command{
		Use:     "rm SERVICE ID|HOST:PORT...",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove endpoints",
		Long: "rm deletes the key SERVICE/ID or, if there is none, every endpoint of SERVICE with that\n" +
			"address. Up to " + strconv.Itoa(edit.MaxKeys) + " are removed in one transaction, all or none; a larger change takes several.\n" +
			"With --all, whatever is under SERVICE/ is removed.\n\n" +
			selectorHelp + "\n" +
			"rollcall get shows what a selector selects.\n\n" +
			"An id that cannot be printed may be given as rollcall get shows it, such as 'a\\xff'. A server\n" +
			"that is still running registers again: stop it instead. If there is nothing to remove, the\n" +
			"exit code is 3.\n\n" +
			"Before a service is left without an endpoint, rm asks on a terminal, and elsewhere wants --yes.",
		Example: "  rollcall rm my-service blue-1\n  rollcall rm my-service 10.0.0.7:50051\n  rollcall rm my-service -l version=v1\n  rollcall rm my-service --all --yes",
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
		RunE: func(cmd *cobra.Command, args []string) error {
			service, find, err := which.parse(args)
			if err != nil {
				return err
			}
			return a.confirmed(cmd.Context(), yes, func(yes bool) error {
				return a.talk(cmd.Context(), func(ctx context.Context, client *clientv3.Client) error {
					if all {
						return a.removeAll(ctx, client, service, yes)
					}
					return a.remove(ctx, client, service, find, yes)
				})
			})
		},
	}
	which.addFlag(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "remove all keys under SERVICE/")
	addYes(cmd.Flags(), &yes)
	return cmd
}

func (a *app) remove(ctx context.Context, client *clientv3.Client, service string, find edit.Finder, yes bool) error {
	check := edit.KeepOne
	if yes {
		check = nil
	}
	done, err := change(ctx, client, service, find, check, func(k edit.Key) (clientv3.Op, error) {
		return clientv3.OpDelete(k.Key), nil
	})
	if err != nil && len(done.Written) == 0 {
		return err
	}
	leased := slices.ContainsFunc(done.Written, func(w edit.Written) bool { return w.Lease != 0 })
	keys := make([]string, 0, len(done.Written))
	for _, w := range done.Written {
		keys = append(keys, w.Key.Key)
	}
	return cmp.Or(a.printRemoved(keys, leased, done.Revision, done.Transactions), err)
}

func (a *app) removeAll(ctx context.Context, client *clientv3.Client, service string, yes bool) error {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return err
	}
	snap, err := list(ctx, dir, service)
	if err != nil {
		return err
	}
	if !yes && snap.Len() > 0 {
		return edit.Emptied(snap)
	}
	leased := false
	var steps []edit.Step
	var keys []string
	remove := func(key string, lease clientv3.LeaseID, modRevision int64) {
		leased = leased || lease != 0
		keys = append(keys, key)
		steps = append(steps, edit.Step{Unchanged: map[string]int64{key: modRevision}, Writes: []clientv3.Op{clientv3.OpDelete(key)}})
	}
	for inst := range snap.All() {
		remove(inst.Key, inst.Lease, inst.ModRevision)
	}
	for _, r := range snap.Invalid() {
		remove(r.Key, r.Lease, r.ModRevision)
	}
	done, err := edit.Commit(ctx, client, steps)
	if err != nil {
		return fmt.Errorf("remove the keys of service %q, of which %d of %d have gone: %w; see %s, and try again",
			service, done.Steps, len(steps), err, shellLineWith("rollcall get", service))
	}
	slices.Sort(keys)
	return a.printRemoved(keys, leased, done.Revision, done.Transactions)
}

// printRemoved prints the keys that were removed; leased: one of them was under a lease.
func (a *app) printRemoved(keys []string, leased bool, revision int64, transactions int) error {
	a.sayDivided(transactions)
	if leased {
		a.say("it was under a lease: if its server is still running, it will come back")
	}
	if a.json() {
		return a.printJSON(deletion{APIVersion: apiVersion, Kind: "Deletion", Revision: revision, Transactions: transactions, keyList: listOf(keys)})
	}
	rows := [][]string{{"REMOVED"}}
	for _, key := range keys {
		rows = append(rows, []string{key})
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
