// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// drainPreview is what a drain would do.
type drainPreview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision  int64            `json:"revision"`
	Moved     float64          `json:"moved"` // part of all calls that would go elsewhere
	Endpoints []edit.CallShare `json:"endpoints"`
}

func newDrain(a *app) *cobra.Command {
	var dryRun, force bool
	var which selection
	cmd := &cobra.Command{
		Use:   "drain SERVICE ID|HOST:PORT...",
		Short: "Take endpoints out of new calls",
		Long: "drain sets \"status\": \"draining\" in the endpoints' metadata: clients send them no new\n" +
			"calls, and running calls go on. If all endpoints of a service drain, clients call them\n" +
			"nevertheless, so the last one is drained only with --force. Up to " + strconv.Itoa(edit.MaxKeys) + " endpoints are marked\n" +
			"in one transaction, all or none; a larger change takes several, and clients may see a part of it first.\n\n" +
			selectorHelp + "\n\n" +
			"A running server keeps the mark until rollcall undrain. When its process restarts, after a\n" +
			"crash too, the server registers anew and takes calls: for a host that must stay out of\n" +
			"use, stop the server as well.\n\n" +
			"--dry-run writes nothing and shows which share of the calls each endpoint takes, before\n" +
			"and after, by their weights; IN ZONE is the share of calls that stay in its zone, as\n" +
			"under rollcall_zone. Policies that read no weights, such as round_robin, give each the same.\n" +
			"More than " + strconv.Itoa(maxAlike) + " of a zone are a row together; -o json has each.",
		Example: "  rollcall drain my-service blue-1 --dry-run\n  rollcall drain my-service 10.0.0.7:50051 10.0.0.8:50051\n" +
			"  rollcall drain my-service -l zone=eu-1",
		Args: usageArgs(which.args()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dryRun {
				return a.previewDrain(cmd.Context(), args, which, force)
			}
			var check edit.Check
			if !force {
				check = keepServing
			}
			return a.edit(cmd.Context(), args, which,
				metadataEdit{field: "status", value: rollcall.StatusDraining, check: check, already: "draining"})
		},
	}
	which.addFlag(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "write nothing; show which calls would move, and to whom")
	cmd.Flags().BoolVar(&force, "force", false, "drain the last serving endpoint too")
	return cmd
}

// keepServing is edit.KeepServing, with the way out.
func keepServing(snap *rollcall.Snapshot, keys []edit.Key) (relied *rollcall.Instance, err error) {
	if relied, err = edit.KeepServing(snap, keys); err != nil {
		err = fail(exitOther, "%w, or use --force", err)
	}
	return relied, err
}

func (a *app) previewDrain(ctx context.Context, args []string, which selection, force bool) error {
	service, find, err := which.parse(args)
	if err != nil {
		return err
	}
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := dir.List(ctx, service)
		if err != nil {
			return fmt.Errorf("list service %q: %w", service, err)
		}
		keys, err := find(snap)
		if err != nil {
			return notFound(ctx, client, err)
		}
		if !force {
			if _, err := keepServing(snap, keys); err != nil {
				return err
			}
		}
		var draining []edit.Key
		for _, k := range keys {
			switch {
			case k.Instance == nil:
				a.say("%q is invalid: it gets no calls anyway", k.Key)
			case k.Instance.Draining():
				draining = append(draining, k)
			}
		}
		a.sayAlready(draining, "draining")
		if len(edit.TakingCalls(snap, keys)) == 0 {
			a.say("every endpoint of service %q would be draining: clients call them nevertheless, rather than none", service)
		}
		p := drainPreview{APIVersion: apiVersion, Kind: "DrainPreview", serviceName: nameOf(service), Revision: snap.Revision()}
		p.Endpoints, p.Moved = edit.PreviewDrain(snap, keys)
		return a.printPreview(p)
	})
}

func (a *app) printPreview(p drainPreview) error {
	if a.json() {
		return a.printJSON(p)
	}
	a.say("%s of the calls to service %q would move; nothing was written", percent(p.Moved), p.Service)
	if times := growth(p.Endpoints); times >= 1.05 {
		a.say("an endpoint that stays would take up to %.1f times its calls", times)
	}
	if slices.ContainsFunc(p.Endpoints, func(e edit.CallShare) bool { return e.Weight != p.Endpoints[0].Weight }) {
		a.say("shares go by weights; a policy that does not read them, such as round_robin, calls all endpoints alike")
	}
	rows := [][]string{{"ID", "ADDRESS", "ZONE", "WEIGHT", "SHARE", "AFTER", "IN ZONE", "IN ZONE AFTER"}}
	for _, e := range together(p.Endpoints) {
		before, zoneBefore, after, zoneAfter := percent(e.Before), percent(e.ZoneBefore), percent(e.After), percent(e.ZoneAfter)
		if e.Status == rollcall.StatusDraining && e.Before == 0 {
			before, zoneBefore = "drained", "drained"
		}
		if e.Drains && e.After == 0 {
			after, zoneAfter = "drained", "drained"
		}
		weight := ""
		if e.Weight > 0 {
			weight = strconv.FormatUint(uint64(e.Weight), 10)
		}
		rows = append(rows, []string{e.ID, e.Addr, e.Zone, weight, before, after, zoneBefore, zoneAfter})
	}
	if !slices.ContainsFunc(p.Endpoints, func(e edit.CallShare) bool { return e.Zone != "" }) {
		for i := range rows {
			rows[i] = slices.Delete(rows[i][:6], 2, 3)
		}
	}
	for _, zone := range emptied(p.Endpoints) {
		a.say("zone %q would have no serving endpoint: its calls would go to other zones", zone)
	}
	return a.write(a.fitted(rows))
}

// growth returns how many times its calls an endpoint gets at most.
func growth(endpoints []edit.CallShare) (times float64) {
	for _, e := range endpoints {
		if e.Before > 0 {
			times = max(times, e.After/e.Before)
		}
	}
	return times
}

// maxAlike bounds the endpoints of a zone that have a row each.
const maxAlike = 20

// together returns the endpoints with those of a zone summed up, where many drain, or many stay. A sum has no address
// and no weight.
func together(endpoints []edit.CallShare) (rows []edit.CallShare) {
	type alike struct {
		zone, status string
		drains       bool
	}
	groupOf := func(e edit.CallShare) alike { return alike{e.Zone, e.Status, e.Drains} }
	count, sum := make(map[alike]int), make(map[alike]int)
	for _, e := range endpoints {
		count[groupOf(e)]++
	}
	for _, e := range endpoints {
		group := groupOf(e)
		at, summed := sum[group]
		switch n := count[group]; {
		case n <= maxAlike:
			rows = append(rows, e)
		case !summed:
			sum[group] = len(rows)
			e.ID, e.Addr, e.Weight = fmt.Sprintf("(%d endpoints)", n), "", 0
			rows = append(rows, e)
		default:
			rows[at].Before += e.Before
			rows[at].After += e.After
			rows[at].ZoneBefore += e.ZoneBefore
			rows[at].ZoneAfter += e.ZoneAfter
		}
	}
	return rows
}

// emptied returns the zones that have a share before, and none after.
func emptied(endpoints []edit.CallShare) (zones []string) {
	after := make(map[string]float64)
	for _, e := range endpoints {
		after[e.Zone] += e.After
	}
	for _, e := range endpoints {
		if e.Zone != "" && after[e.Zone] == 0 && !slices.Contains(zones, e.Zone) {
			zones = append(zones, e.Zone)
		}
	}
	return zones
}

func percent(part float64) string {
	if part > 0 && part < 0.0005 {
		return "<0.1%"
	}
	return fmt.Sprintf("%.1f%%", 100*part)
}
