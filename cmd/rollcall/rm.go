// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type deletion struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Revision   int64    `json:"revision"`
	Keys       []string `json:"keys"`
	KeysBase64 []string `json:"keysBase64,omitempty"` // all of Keys, where one of them is not UTF-8
}

func newRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm SERVICE ID|HOST:PORT...",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove endpoints",
		Long: "rm deletes the key SERVICE/ID or, where there is none, every endpoint of SERVICE with\n" +
			"that address. Of several names all are removed, or none. A server that keeps itself\n" +
			"registered comes back: stop it instead. Nothing to remove is an error, exit code 3.",
		Example: "  rollcall rm my-service blue-1\n  rollcall rm my-service 10.0.0.7:50051",
		Args:    usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := checkNames(args[0], args[1:])
			if err != nil {
				return err
			}
			return a.rm(cmd.Context(), service, args[1:])
		},
	}
}

func (a *app) rm(ctx context.Context, service string, names []string) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		done, err := a.change(ctx, client, service, names, func(h storedKey) (clientv3.Op, error) {
			return clientv3.OpDelete(h.key), nil
		})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(done.held, func(h storedKey) bool { return h.lease != 0 }) {
			a.say("it stood under a lease: a server that is alive and keeps itself registered will come back")
		}
		keys := make([]string, 0, len(done.held))
		for _, h := range done.held {
			keys = append(keys, h.key)
		}
		return a.printRemoved(keys, done.revision)
	})
}

func (a *app) printRemoved(keys []string, revision int64) error {
	if a.json() {
		d := deletion{APIVersion: apiVersion, Kind: "Deletion", Revision: revision, Keys: keys}
		if slices.ContainsFunc(keys, func(key string) bool { return base64Of(key) != "" }) {
			for _, key := range keys {
				d.KeysBase64 = append(d.KeysBase64, base64.StdEncoding.EncodeToString([]byte(key)))
			}
		}
		return a.printJSON(d)
	}
	rows := [][]string{{"REMOVED"}}
	for _, key := range keys {
		rows = append(rows, []string{key})
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
