// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// mostRemoved is how many keys go in one transaction: etcd takes 128 operations.
const mostRemoved = 128

type deletion struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Revision   int64    `json:"revision"`
	Keys       []string `json:"keys"`
}

func newRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm SERVICE ID|HOST:PORT",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove an endpoint",
		Long: "rm deletes the key SERVICE/ID or, where there is none, every endpoint of SERVICE with\n" +
			"that address. A server that keeps itself registered comes back: stop it instead.\n" +
			"Nothing to remove is an error, exit code 3.",
		Example: "  rollcall rm my-service blue-1\n  rollcall rm my-service 10.0.0.7:50051",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			if args[1] == "" {
				return fail(exitUsage, "the id is empty; see rollcall get %s", service)
			}
			return a.rm(cmd.Context(), service, args[1])
		},
	}
}

func (a *app) rm(ctx context.Context, service, name string) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		for {
			doomed, revision, err := find(ctx, client, service, name)
			if err != nil {
				return err
			}
			if len(doomed) == 0 {
				return fail(exitNotFound, "service %q has neither an id nor an address %q at revision %d; see rollcall get %s",
					service, name, revision, service)
			}
			if len(doomed) > mostRemoved {
				return fail(exitOther, "%d keys of service %q have the address %q, more than the %d that go at once; remove them by id",
					len(doomed), service, name, mostRemoved)
			}
			done, revision, err := remove(ctx, client, doomed)
			if err != nil {
				return fmt.Errorf("remove %q of service %q: %w", name, service, err)
			}
			if done {
				return a.printRemoved(doomed, revision)
			}
		}
	})
}

// find returns the key of that id, or else the instances of that address.
func find(ctx context.Context, client *clientv3.Client, service, name string) (doomed []*mvccpb.KeyValue, revision int64, err error) {
	key := rollcall.Key(service, name)
	resp, err := client.Get(ctx, key)
	if err != nil {
		return nil, 0, fmt.Errorf("look up %q: %w", key, err)
	}
	if len(resp.Kvs) > 0 {
		return resp.Kvs, resp.Header.Revision, nil
	}
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return nil, 0, err
	}
	snap, err := dir.List(ctx, service)
	if err != nil {
		return nil, 0, fmt.Errorf("list service %q: %w", service, err)
	}
	for _, inst := range snap.Instances() {
		if inst.Addr == name {
			doomed = append(doomed, &mvccpb.KeyValue{Key: []byte(inst.Key), Lease: int64(inst.Lease), ModRevision: inst.ModRevision})
		}
	}
	return doomed, snap.Revision(), nil
}

// remove deletes all the keys, or none if one of them was written meanwhile.
func remove(ctx context.Context, client *clientv3.Client, doomed []*mvccpb.KeyValue) (done bool, revision int64, err error) {
	var same []clientv3.Cmp
	var deletes []clientv3.Op
	for _, kv := range doomed {
		same = append(same, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
		deletes = append(deletes, clientv3.OpDelete(string(kv.Key)))
	}
	resp, err := client.Txn(ctx).If(same...).Then(deletes...).Commit()
	if err != nil {
		return false, 0, err
	}
	return resp.Succeeded, resp.Header.Revision, nil
}

func (a *app) printRemoved(removed []*mvccpb.KeyValue, revision int64) error {
	gone := deletion{APIVersion: apiVersion, Kind: "Deletion", Revision: revision, Keys: make([]string, 0, len(removed))}
	rows := [][]string{{"REMOVED"}}
	for _, kv := range removed {
		gone.Keys = append(gone.Keys, string(kv.Key))
		rows = append(rows, []string{string(kv.Key)})
	}
	if slices.ContainsFunc(removed, func(kv *mvccpb.KeyValue) bool { return kv.Lease != 0 }) {
		a.say("it stood under a lease: a server that is alive and keeps itself registered will come back")
	}
	if a.json() {
		return a.printJSON(gone)
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
