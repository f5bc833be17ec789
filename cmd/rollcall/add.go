// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func newAdd(a *app) *cobra.Command {
	var flags endpointFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "add SERVICE HOST:PORT",
		Short: "Add an endpoint that cannot register itself",
		Long: "add writes the key SERVICE/ID. The key stays until it is removed, even if the server\n" +
			"dies: servers that can register themselves should (see rollcall register). With --ttl\n" +
			"the key is under a lease that is not renewed, and etcd removes it after that time. An\n" +
			"existing key is replaced only with --force. If a running server has it registered, the\n" +
			"server keeps the new value, under its own lease; with --ttl the server waits and puts\n" +
			"its own value back after that time.",
		Example: "  rollcall add my-service 10.0.0.7:50051\n" +
			"  rollcall add my-service 10.0.0.7:50051 --id blue-1 --metadata '{\"weight\":10,\"zone\":\"eu-1\"}'\n" +
			"  rollcall add my-service 10.0.0.7:50051 --ttl 1h --force",
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := flags.parse(args[0], args[1])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("ttl") {
				if err := checkTTL(flags.ttl); err != nil {
					return err
				}
			}
			a.warn(e)
			return a.add(cmd.Context(), e, flags.ttl, force)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().DurationVar(&flags.ttl, "ttl", 0, "write it under a lease of this time, which is not renewed (default: no lease)")
	cmd.Flags().BoolVar(&force, "force", false, "replace the key if it exists")
	return cmd
}

func (a *app) add(ctx context.Context, e entry, ttl time.Duration, force bool) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		var lease clientv3.LeaseID
		var granted int64
		if ttl > 0 {
			resp, err := a.grantLease(ctx, client, ttl)
			if err != nil {
				return err
			}
			lease, granted = resp.ID, resp.TTL
		}
		revision, old, err := put(ctx, client, e, lease, force)
		if err != nil {
			a.revoke(ctx, client, lease)
			return err
		}
		inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte(e.key()), Value: e.value,
			Lease: int64(lease), CreateRevision: revision, ModRevision: revision})
		if err != nil {
			return err
		}
		if old != nil {
			inst.CreateRevision = old.CreateRevision
		}
		row := inventory.Of(inst, inventory.Under(e.service))
		row.TTL = granted
		a.sayReplaced(old, inst)
		return a.printAdded(row, old)
	})
}

// put writes the endpoint and returns the revision. An existing key is an error or, with
// force, replaced and returned as it was.
func put(ctx context.Context, client *clientv3.Client, e entry, lease clientv3.LeaseID, force bool) (int64, *mvccpb.KeyValue, error) {
	key := e.key()
	write := clientv3.OpPut(key, string(e.value), clientv3.WithLease(lease))
	modRevision, old := int64(0), (*mvccpb.KeyValue)(nil)
	for {
		resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", modRevision)).
			Then(write).Else(clientv3.OpGet(key)).Commit()
		if err != nil {
			return 0, nil, fmt.Errorf("add %q: %w", key, err)
		}
		if resp.Succeeded {
			return resp.Header.Revision, old, nil
		}
		modRevision, old = 0, nil
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			modRevision, old = kvs[0].ModRevision, kvs[0]
		}
		if old != nil && !force {
			return 0, nil, fail(exitOther, "%q exists already, with value %s at revision %d; use --force to replace it, or another --id",
				key, shorten(string(old.Value), 80), old.ModRevision)
		}
	}
}

// sayReplaced tells what of an endpoint that was replaced is another now. A value is replaced as a whole.
func (a *app) sayReplaced(old *mvccpb.KeyValue, inst *rollcall.Instance) {
	if old == nil {
		return
	}
	was, err := rollcall.Decode(old)
	if err != nil {
		return
	}
	if changed := (rollcall.Change{Key: inst.Key, Old: was, New: inst}).Fields(); len(changed) > 0 {
		a.say("replaced what was there: %s", inventory.FieldsText(changed))
	}
	if was.Draining() && !inst.Draining() {
		a.say("the endpoint was draining, and takes calls now")
	}
}

func (a *app) printAdded(row inventory.Instance, old *mvccpb.KeyValue) error {
	switch {
	case row.Lease != "":
		a.say("lease %s is not renewed: etcd removes the key %ds after it was written", row.Lease, row.TTL)
		if old != nil && old.Lease != 0 {
			a.say("the key was under lease %x: if its server is still running, it waits until then "+
				"and puts its own value back", old.Lease)
		}
	case old != nil && old.Lease != 0:
		a.say("the key was under lease %x: if its server is still running, the server takes the new value "+
			"under its lease, and removes the key when it stops; otherwise the key stays until it is removed", old.Lease)
	}
	if a.json() {
		return a.printJSON(newWritten(row))
	}
	_, err := fmt.Fprint(a.stdout, writtenTable(row))
	return err
}
