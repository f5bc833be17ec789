// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// moved tells what became of a service that was moved, or would.
type moved struct {
	APIVersion  string `json:"apiVersion"`
	Kind        string `json:"kind"`
	DryRun      bool   `json:"dryRun"`
	serviceName        // the new one
	From        string `json:"from"`
	FromBase64  string `json:"fromBase64,omitempty"`
	Revision    int64  `json:"revision"`
	keyList
	Left          []string `json:"left,omitempty"` // old keys that stay, under the leases of their servers
	LeftBase64    []string `json:"leftBase64,omitempty"`
	Configs       []string `json:"configs,omitempty"` // the new keys of service configs
	ConfigsBase64 []string `json:"configsBase64,omitempty"`
}

type mvFlags struct {
	force, dryRun, yes bool
}

func newMv(a *app) *cobra.Command {
	var f mvFlags
	cmd := &cobra.Command{
		Use:     "mv SERVICE NEW",
		Aliases: []string{"move", "rename"},
		Short:   "Give a service another name",
		Long: "mv moves every key under SERVICE/, and the service config, to the service NEW, which must not\n" +
			"exist; services within it, SERVICE/OTHER, move too. It is one transaction, of up to 3,969 keys or\n" +
			"1 MiB: all is moved at one revision, or nothing.\n\n" +
			"Clients of SERVICE find nothing from then on: change them first, or add a second service. mv asks\n" +
			"before that on a terminal, and elsewhere wants --yes.\n\n" +
			"An endpoint under a lease is kept by its server, which knows it by the old name and would put\n" +
			"the old key back. mv refuses to move such a service. With --force it copies these endpoints\n" +
			"under their own leases, and the service config, so that both names work as long as the servers\n" +
			"live. The old keys go when the servers are restarted under the new name; the old service config\n" +
			"stays until rollcall config rm.",
		Example: "  rollcall mv my-service shop/my-service --dry-run\n  rollcall mv my-service shop/my-service --force",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			to, err := rollcall.ParseService(args[1])
			if err != nil {
				return err
			}
			if err := errors.Join(rollcall.CheckKey(from+"/"), rollcall.CheckKey(to+"/")); err != nil {
				return err
			}
			if strings.HasPrefix(from+"/", to+"/") || strings.HasPrefix(to+"/", from+"/") {
				return fail(exitUsage, "services %q and %q: one has the keys of the other; move to a name that does not begin with it", from, to)
			}
			return a.confirmed(cmd.Context(), f.yes, func(yes bool) error {
				f.yes = yes
				return a.mv(cmd.Context(), from, to, f)
			})
		},
	}
	cmd.Flags().BoolVar(&f.force, "force", false, "copy endpoints under a lease, and leave their old keys to their servers")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would be moved, but write nothing")
	addYes(cmd.Flags(), &f.yes)
	return cmd
}

func (a *app) mv(ctx context.Context, from, to string, f mvFlags) error {
	return a.talkLong(ctx, func(ctx context.Context, client *clientv3.Client) error {
		done, err := edit.Move(ctx, client, from, to, edit.MoveOptions{CopyLeased: f.force, MayEmpty: f.yes, DryRun: f.dryRun})
		var leased *edit.LeasedError
		var exists *edit.ExistsError
		var large *edit.TooLargeError
		switch {
		case errors.As(err, &leased):
			return fail(exitOther, "%w; restart them as %q, or use --force to copy them until they are", err, to)
		case errors.As(err, &exists):
			return fail(exitOther, "%w: service %q must be new; nothing was written", err, to)
		case errors.As(err, &large):
			return fail(exitOther, "%w; nothing was written: export it, change the name in the file, import that, and remove the old service with rm --all", err)
		case err != nil:
			return notFound(ctx, client, err)
		}
		return a.printMoved(moved{APIVersion: apiVersion, Kind: "Move", DryRun: f.dryRun, serviceName: nameOf(to),
			From: from, FromBase64: inventory.Base64(from), Revision: done.Revision, keyList: listOf(done.Keys),
			Left: done.Left, LeftBase64: allBase64(done.Left), Configs: done.Configs, ConfigsBase64: allBase64(done.Configs)})
	})
}

func (a *app) printMoved(m moved) error {
	if m.DryRun {
		a.say("%s would be moved: this is a dry run", plural.Count(len(m.Keys)+len(m.Configs), "key", "keys"))
	} else if len(m.Left) > 0 {
		a.say("service %q keeps %s under a lease until their servers stop: restart them as %q", m.From, plural.Count(len(m.Left), "endpoint", "endpoints"), m.Service)
	}
	if a.json() {
		return a.printJSON(m)
	}
	rows := [][]string{{"MOVED TO"}}
	if m.DryRun {
		rows[0][0] = "NEW KEY"
	}
	for _, key := range m.Keys {
		rows = append(rows, []string{key})
	}
	for _, key := range m.Configs {
		rows = append(rows, []string{key})
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
