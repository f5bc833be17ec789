// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/balancer/zone"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// edited lists endpoints whose metadata was changed.
type edited struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision     int64                `json:"revision"` // of the last transaction
	Transactions int                  `json:"transactions"`
	Instances    []inventory.Instance `json:"instances"`
}

func newUndrain(a *app) *cobra.Command {
	var dryRun bool
	var which selection
	cmd := &cobra.Command{
		Use:   "undrain SERVICE ID|HOST:PORT...",
		Short: "Let drained endpoints take calls again",
		Long: "undrain removes \"status\" from the endpoints' metadata; the default is \"serving\". A server\n" +
			"that drains because it shuts down still deletes its key. A restart undrains an endpoint, too.\n\n" +
			selectorHelp + " So\n" +
			"it undrains what others have drained before as well; drain tells of those.\n\n" +
			allServicesHelp + "\n\n" + previewHelp,
		Example: "  rollcall undrain my-service blue-1\n  rollcall undrain my-service -l status=draining -l zone=eu-1\n" +
			"  rollcall undrain -A -l host=node-11",
		Args: usageArgs(which.args()),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.edit(cmd.Context(), args, which, metadataEdit{preview: "UndrainPreview", field: "status", already: "serving", dryRun: dryRun})
		},
	}
	which.addFlag(cmd.Flags())
	which.addAllServicesFlag(cmd.Flags())
	addDryRun(cmd, &dryRun)
	return cmd
}

func newWeight(a *app) *cobra.Command {
	var dryRun bool
	var which selection
	cmd := &cobra.Command{
		Use:   "weight SERVICE ID|HOST:PORT N",
		Short: "Set an endpoint's weight",
		Long: "weight sets \"weight\" in an endpoint's metadata, a whole number from 1 to 4294967295. An\n" +
			"endpoint without one has weight 1. Clients whose balancing policy reads weights, such\n" +
			"as rollcall_weighted, follow at once, without a new connection.\n\n" +
			"A running server keeps the weight until its program sets another one. When its process\n" +
			"restarts, after a crash too, the server registers with the weight that its program gives, and\n" +
			"this one is lost: to keep a weight, set it in the program or in its --metadata.\n\n" +
			selectorHelp + "\n\n" + allServicesHelp + "\n\n" + previewHelp,
		Example: "  rollcall weight my-service blue-1 10 --dry-run\n  rollcall weight my-service blue-1 10\n  rollcall weight my-service -l version=v2 10\n" +
			"  rollcall weight -A -l host=node-11 10",
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			return cmp.Or(which.args("N")(cmd, args), cobra.MaximumNArgs(3)(cmd, args))
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			last := len(args) - 1
			weight, err := strconv.ParseUint(args[last], 10, 32)
			if err != nil || weight == 0 {
				return fail(exitUsage, "weight %q: want a whole number from 1 to 4294967295; to stop calls to an endpoint, see rollcall drain", args[last])
			}
			return a.edit(cmd.Context(), args[:last], which,
				metadataEdit{preview: "WeightPreview", field: "weight", value: weight, already: "of that weight", then: a.sayUnread, dryRun: dryRun})
		},
	}
	which.addFlag(cmd.Flags())
	which.addAllServicesFlag(cmd.Flags())
	addDryRun(cmd, &dryRun)
	return cmd
}

// metadataEdit sets a field of endpoints' metadata, or removes it.
type metadataEdit struct {
	preview string // the kind of the document of --dry-run
	field   string
	value   any                                               // nil: it is removed
	check   edit.Check                                        // that may refuse; nil: none
	already string                                            // what an endpoint is that has the value, such as "draining"
	then    func(context.Context, *clientv3.Client, []string) // is called in the end, with the services; nil: nothing is
	dryRun  bool                                              // show what it would do to the calls, and write nothing
}

// edit makes a change to the endpoints that the arguments name, or that are selected, of one service or of all. Leases
// stay.
func (a *app) edit(ctx context.Context, args []string, which selection, e metadataEdit) error {
	service, find, err := which.parseForWrite(args)
	if err != nil {
		return err
	}
	if len(args) > 1 {
		if err := rollcall.CheckKey(rollcall.Key(service, args[1])); err != nil {
			return err
		}
	}
	if which.all {
		return a.editAll(ctx, which, e)
	}
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		if e.dryRun {
			return a.preview(ctx, client, service, find, e)
		}
		done, err := change(ctx, client, service, find, e.check, edit.SetField(e.field, e.value))
		if err != nil && len(done.Written) == 0 {
			return err
		}
		if err := cmp.Or(a.printEdited(service, done, e.already), err); err != nil {
			return err
		}
		if e.then != nil {
			e.then(ctx, client, []string{service})
		}
		return nil
	})
}

// calledNevertheless is what becomes of a service whose endpoints all drain.
const calledNevertheless = "clients call them nevertheless, rather than none"

// madeEdit is what an edit did to a service.
type madeEdit struct {
	edited
	same               []edit.Key // that were written all the same: an operator's mark outlasts a health check's
	serving, endpoints int        // of the service, after it
}

func editOf(service string, done edit.Change) (m madeEdit, err error) {
	m.edited = edited{APIVersion: apiVersion, Kind: "Edit", serviceName: nameOf(service), Revision: done.Revision, Transactions: done.Transactions}
	serving := make(map[string]bool)
	for inst := range done.Before.All() {
		serving[inst.Key] = !inst.Draining()
	}
	for _, w := range done.Written {
		inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte(w.Key.Key), Value: w.Op.ValueBytes(), Lease: int64(w.Lease),
			CreateRevision: w.CreateRevision, ModRevision: w.Revision})
		if err != nil {
			return m, err
		}
		if edit.SameShare(w.Instance, inst) {
			m.same = append(m.same, w.Key)
		}
		serving[inst.Key] = !inst.Draining()
		m.Instances = append(m.Instances, inventory.Of(inst, inventory.Under(service)))
	}
	m.endpoints = len(serving)
	maps.DeleteFunc(serving, func(_ string, serves bool) bool { return !serves })
	m.serving = len(serving)
	return m, nil
}

func (a *app) printEdited(service string, done edit.Change, already string) error {
	m, err := editOf(service, done)
	if err != nil {
		return err
	}
	a.sayAlready(m.same, already)
	a.sayDivided(m.Transactions)
	if m.serving == 0 {
		a.say("every endpoint of service %q is draining: "+calledNevertheless, service)
	} else if len(done.Written) > 1 {
		a.say("%s; %d of %d endpoints of service %q are serving", countChanged(len(done.Written)-len(m.same)), m.serving, m.endpoints, service)
	}
	if a.json() {
		return a.printJSON(m.edited)
	}
	return a.write(a.fitted(instanceRows(m.Instances, time.Now(), instanceColumns{})))
}

func countChanged(n int) string {
	return plural.Count(n, "endpoint was changed", "endpoints were changed")
}

// sayAlready tells of endpoints that were what they are to be.
func (a *app) sayAlready(same []edit.Key, what string) {
	if len(same) == 0 {
		return
	}
	keys := make([]string, 0, len(same))
	for _, k := range same {
		keys = append(keys, strconv.Quote(k.Key))
	}
	a.say("%s %s already: %s", plural.Count(len(same), "endpoint was", "endpoints were"), what, shorten(strings.Join(keys, ", "), 200))
}

// sayUnread tells where weights count for nothing, as far as the service configs show.
func (a *app) sayUnread(ctx context.Context, client *clientv3.Client, services []string) {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return
	}
	var unread []string
	why := ""
	for _, service := range services {
		if cause := unreadWeights(ctx, dir, service); cause != "" {
			unread, why = append(unread, service), cause
		}
	}
	const policy = "count under a policy that reads them, such as rollcall_weighted, and"
	switch len(unread) {
	case 0:
	case 1:
		a.say("weights of service %q %s %s; see rollcall config set --help", unread[0], policy, why)
	default:
		a.say("weights of services %s %s their service configs do not name one; see rollcall config set --help", edit.Names(unread), policy)
	}
}

// unreadWeights returns why weights of a service count for nothing, "" if they do count or that is not known.
func unreadWeights(ctx context.Context, dir *rollcall.Directory, service string) string {
	config, err := dir.ServiceConfig(ctx, service)
	if err != nil {
		return ""
	}
	switch policy := edit.PolicyOf(config); {
	case policy.Weighting == edit.ByWeight, policy.Name == zone.Name: // which goes by weights among zones
		return ""
	case config.JSON == nil:
		return "it has no service config, so that each client has its own"
	case policy.Weighting == edit.UnknownWeighting:
		return "its service config does not tell which it has"
	}
	return "its service config names another"
}
