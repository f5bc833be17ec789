// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// edited lists endpoints whose metadata was changed.
type edited struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision  int64                `json:"revision"`
	Instances []inventory.Instance `json:"instances"`
}

func newUndrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "undrain SERVICE ID|HOST:PORT...",
		Short: "Let drained endpoints take calls again",
		Long: "undrain removes \"status\" from the endpoints' metadata; the default is \"serving\". A server\n" +
			"that drains because it shuts down still deletes its key. A restart undrains an endpoint, too.",
		Example: "  rollcall undrain my-service blue-1",
		Args:    usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.edit(cmd.Context(), args[0], args[1:], "status", nil, nil)
		},
	}
}

func newWeight(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "weight SERVICE ID|HOST:PORT N",
		Short: "Set an endpoint's weight",
		Long: "weight sets \"weight\" in an endpoint's metadata, a whole number from 1 to 4294967295. An\n" +
			"endpoint without one has weight 1. Clients whose balancing policy reads weights, such\n" +
			"as rollcall_weighted, follow at once, without a new connection.\n\n" +
			"A running server keeps the weight until its program sets another one. When its process\n" +
			"restarts, after a crash too, the server registers with the weight that its program gives, and\n" +
			"this one is lost: to keep a weight, set it in the program or in its --metadata.",
		Example: "  rollcall weight my-service blue-1 10",
		Args:    usageArgs(cobra.ExactArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			weight, err := strconv.ParseUint(args[2], 10, 32)
			if err != nil || weight == 0 {
				return fail(exitUsage, "weight %q: want a whole number from 1 to 4294967295; to stop calls to an endpoint, see rollcall drain", args[2])
			}
			return a.edit(cmd.Context(), args[0], args[1:2], "weight", weight, nil)
		},
	}
}

// edit sets a field of the endpoints' metadata, or removes it if value is nil, unless
// check, where it is not nil, refuses. Leases stay.
func (a *app) edit(ctx context.Context, service string, names []string, field string, value any, check edit.Check) error {
	service, err := checkNames(service, names)
	if err != nil {
		return err
	}
	if err := rollcall.CheckKey(rollcall.Key(service, names[0])); err != nil {
		return err
	}
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		done, err := a.change(ctx, client, service, names, check, edit.SetField(field, value))
		if err != nil {
			return err
		}
		return a.printEdited(service, done)
	})
}

func (a *app) printEdited(service string, done edit.Change) error {
	e := edited{APIVersion: apiVersion, Kind: "Edit", serviceName: nameOf(service), Revision: done.Revision}
	serving := make(map[string]bool)
	for inst := range done.Before.All() {
		serving[inst.Key] = !inst.Draining()
	}
	for i, k := range done.Keys {
		inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte(k.Key), Value: done.Writes[i].ValueBytes(), Lease: int64(k.Lease),
			CreateRevision: k.CreateRevision, ModRevision: done.Revision})
		if err != nil {
			return err
		}
		serving[inst.Key] = !inst.Draining()
		e.Instances = append(e.Instances, inventory.Of(inst, inventory.Under(service)))
	}
	if !slices.Contains(slices.Collect(maps.Values(serving)), true) {
		a.say("every endpoint of service %q is draining: clients call them nevertheless, rather than none", service)
	}
	if a.json() {
		return a.printJSON(e)
	}
	_, err := fmt.Fprint(a.stdout, a.fitted(instanceRows(e.Instances, time.Now(), false)))
	return err
}
