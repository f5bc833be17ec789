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

	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
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
		Long: "rm deletes the key SERVICE/ID or, if there is none, every endpoint of SERVICE with that\n" +
			"address. Of several names, all are removed or none. A server that is still running\n" +
			"registers again: stop it instead. If there is nothing to remove, the exit code is 3.",
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
		done, err := a.change(ctx, client, service, names, nil, func(k edit.Key) (clientv3.Op, error) {
			return clientv3.OpDelete(k.Key), nil
		})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(done.Keys, func(k edit.Key) bool { return k.Lease != 0 }) {
			a.say("it was under a lease: if its server is still running, it will come back")
		}
		keys := make([]string, 0, len(done.Keys))
		for _, k := range done.Keys {
			keys = append(keys, k.Key)
		}
		return a.printRemoved(keys, done.Revision)
	})
}

func (a *app) printRemoved(keys []string, revision int64) error {
	if a.json() {
		d := deletion{APIVersion: apiVersion, Kind: "Deletion", Revision: revision, Keys: keys}
		if slices.ContainsFunc(keys, func(key string) bool { return inventory.Base64(key) != "" }) {
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
