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
)

// moved tells what became of a service that was moved.
type moved struct {
	APIVersion  string `json:"apiVersion"`
	Kind        string `json:"kind"`
	serviceName        // the new one
	From        string `json:"from"`
	FromBase64  string `json:"fromBase64,omitempty"`
	Revision    int64  `json:"revision"`
	keyList
	Left         []string `json:"left,omitempty"` // old keys that stay, under the leases of their servers
	LeftBase64   []string `json:"leftBase64,omitempty"`
	Config       bool     `json:"config"` // the service config was moved
	Transactions int      `json:"transactions"`
}

func newMv(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "mv SERVICE NEW",
		Aliases: []string{"move", "rename"},
		Short:   "Give a service another name",
		Long: "mv moves every key under SERVICE/, and the service config, to the service NEW, which must not\n" +
			"exist. All is written under the new name before anything is deleted, in one transaction of up\n" +
			"to 63 endpoints. Clients of SERVICE find nothing from then on: change them first, or add a\n" +
			"second service.\n\n" +
			"An endpoint under a lease is kept by its server, which knows it by the old name and would put\n" +
			"the old key back. mv refuses to move such a service. With --force it copies these endpoints\n" +
			"under their own leases, so that both names work as long as the servers live, and leaves the old\n" +
			"keys to them: they go when the servers are restarted under the new name.",
		Example: "  rollcall mv my-service shop/my-service\n  rollcall mv my-service shop/my-service --force",
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
			return a.mv(cmd.Context(), from, to, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "copy endpoints under a lease, and leave their old keys to their servers")
	return cmd
}

func (a *app) mv(ctx context.Context, from, to string, force bool) error {
	return a.talkLong(ctx, func(ctx context.Context, client *clientv3.Client) error {
		done, err := edit.Move(ctx, client, from, to, force)
		var leased *edit.LeasedError
		var exists *edit.ExistsError
		switch {
		case errors.As(err, &leased):
			return fail(exitOther, "%w; restart them as %q, or use --force to copy them until they are", err, to)
		case errors.As(err, &exists):
			return fail(exitOther, "%w: service %q must be new; nothing was written", err, to)
		case err != nil:
			return notFound(ctx, client, err)
		}
		return a.printMoved(moved{APIVersion: apiVersion, Kind: "Move", serviceName: nameOf(to),
			From: from, FromBase64: inventory.Base64(from), Revision: done.Revision, keyList: listOf(done.Keys),
			Left: done.Left, LeftBase64: allBase64(done.Left), Config: done.Config, Transactions: done.Transactions})
	})
}

func (a *app) printMoved(m moved) error {
	if len(m.Left) > 0 {
		a.say("%d endpoints are still under service %q, too, until their servers stop: restart them as %q", len(m.Left), m.From, m.Service)
	}
	if m.Transactions > 1 {
		a.say("it took %d transactions: all copies came before the first deletion", m.Transactions)
	}
	if a.json() {
		return a.printJSON(m)
	}
	rows := [][]string{{"MOVED TO"}}
	for _, key := range m.Keys {
		rows = append(rows, []string{key})
	}
	if m.Config {
		rows = append(rows, []string{rollcall.ConfigPrefix + m.Service})
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
