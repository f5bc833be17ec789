// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/balancer/zone"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// editPreview is what drain, undrain or weight would do to the calls of a service.
type editPreview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision  int64            `json:"revision"`
	Moved     float64          `json:"moved"`            // part of all calls that would go elsewhere
	Policy    string           `json:"policy,omitempty"` // that the service config names
	Weighting edit.Weighting   `json:"weighting"`        // unknown: shares are by weight as well
	Endpoints []edit.CallShare `json:"endpoints"`

	Serving      int    `json:"serving"` // endpoints that take new calls, now
	ServingAfter int    `json:"servingAfter"`
	Refused      string `json:"refused,omitempty"` // of all services: why nothing would be written
}

func newEditPreview(kind, service string, revision int64, policy edit.Policy, p edit.Preview) editPreview {
	return editPreview{APIVersion: apiVersion, Kind: kind, serviceName: nameOf(service), Revision: revision, Moved: p.Moved,
		Policy: policy.Name, Weighting: policy.Weighting, Endpoints: p.Rows, Serving: p.Serving, ServingAfter: p.ServingAfter}
}

// maxAlike bounds the endpoints of a zone that have a row each.
const maxAlike = 20

// previewHelp is what the help of a command tells of --dry-run.
var previewHelp = "--dry-run writes nothing and shows which share of the calls each endpoint takes, before\n" +
	"and after: by weight, or alike where the policy in the service config reads no weights, such\n" +
	"as round_robin. IN ZONE is its share of the calls that stay in its zone under rollcall_zone;\n" +
	"how many stay depends on the callers. Where more than " + strconv.Itoa(maxAlike) + " of a zone and version change, or\n" +
	"stay, they are a row together; -o json has each."

func addDryRun(cmd *cobra.Command, dryRun *bool) {
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "write nothing; show which calls would move, and to whom")
}

// preview shows what an edit would do to the calls.
func (a *app) preview(ctx context.Context, client *clientv3.Client, service string, find edit.Finder, e metadataEdit) error {
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
	if e.check != nil {
		if _, err := e.check(snap, keys); err != nil {
			return err
		}
	}
	config, err := dir.ServiceConfig(ctx, service)
	if cause := context.Cause(ctx); isSignal(cause) {
		return cause
	}
	if err != nil {
		a.say("without the service config: %s", a.reason(err))
	}
	policy := edit.PolicyOf(config)
	preview, err := edit.PreviewField(service, slices.Collect(snap.All()), keys, e.field, e.value, policy.Weighting)
	if err != nil {
		return err
	}
	a.sayAlready(preview.Same, e.already)
	if e.value == rollcall.StatusDraining && preview.ServingAfter == 0 {
		a.say("every endpoint of service %q would be draining: "+calledNevertheless, service)
	}
	if within := edit.Nested(snap); len(within) > 0 {
		a.say("service %q has others within it, %s: the shares are those of a client of %q, which calls their endpoints as well", service, edit.Names(within), service)
	}
	return a.printPreview(newEditPreview(e.preview, service, snap.Revision(), policy, preview))
}

func (a *app) printPreview(p editPreview) error {
	if a.json() {
		return a.printJSON(p)
	}
	a.say("%s of the calls to service %q would move; nothing was written", percent(p.Moved), p.Service)
	if times := growth(p.Endpoints); times >= 1.05 {
		a.say("an endpoint would take up to %.1f times its calls", times)
	}
	switch differ := p.weightsDiffer(); {
	case p.Policy == zone.Name:
		a.say("under %s calls stay in the caller's zone while it has the capacity, which goes by weights: IN ZONE has the shares of those that stay; "+
			"what spills over is not shown", zone.Name)
	case differ && p.Weighting == edit.Alike:
		a.say("all endpoints are called alike: the policy in the service config reads no weights")
	case differ && p.Weighting == edit.UnknownWeighting:
		a.say("shares go by weights; a policy that does not read them, such as round_robin, calls all endpoints alike")
	}
	a.sayVersions(p.Endpoints)
	for _, e := range p.Endpoints {
		if e.Changes && e.Cause != "" {
			a.say("%q gets no calls: %s", rollcall.Key(p.Service, e.ID), e.Cause)
		}
	}
	rows := [][]string{{"ID", "ADDRESS", "ZONE", "VERSION", "WEIGHT", "SHARE", "AFTER", "IN ZONE", "IN ZONE AFTER"}}
	for _, e := range together(p.Endpoints) {
		before, zoneBefore, after, zoneAfter := percent(e.Before), percent(e.ZoneBefore), percent(e.After), percent(e.ZoneAfter)
		if e.Status == rollcall.StatusDraining && e.Before == 0 {
			before, zoneBefore = "drained", "drained"
		}
		if e.After == 0 && (e.Drains || !e.Changes && e.Status == rollcall.StatusDraining) {
			after, zoneAfter = "drained", "drained"
		}
		rows = append(rows, []string{e.ID, e.Addr, e.Zone, e.Version, weightText(e), before, after, zoneBefore, zoneAfter})
	}
	versions := slices.ContainsFunc(p.Endpoints, func(e edit.CallShare) bool { return e.Version != "" })
	zones := slices.ContainsFunc(p.Endpoints, func(e edit.CallShare) bool { return e.Zone != "" })
	for i := range rows {
		if !versions {
			rows[i] = slices.Delete(rows[i], 3, 4)
		}
		if !zones {
			rows[i] = slices.Delete(rows[i][:len(rows[i])-2], 2, 3)
		}
	}
	for _, name := range emptied(p.Endpoints) {
		a.say("zone %q would have no serving endpoint: its calls would go to other zones, but for those of clients whose target selects it", name)
	}
	return a.write(a.fitted(rows))
}

func (p editPreview) weightsDiffer() bool {
	return slices.ContainsFunc(p.Endpoints, func(e edit.CallShare) bool {
		return e.Weight != p.Endpoints[0].Weight || e.WeightAfter != e.Weight
	})
}

// sayVersions tells which share of the calls each version takes, where there are several.
func (a *app) sayVersions(endpoints []edit.CallShare) {
	before, after := make(map[string]float64), make(map[string]float64)
	for _, e := range endpoints {
		before[e.Version] += e.Before
		after[e.Version] += e.After
	}
	if len(before) < 2 {
		return
	}
	for _, version := range slices.Sorted(maps.Keys(before)) {
		name := "endpoints without a version"
		if version != "" {
			name = fmt.Sprintf("version %q", version)
		}
		a.say("%s: %s of the calls now, %s after", name, percent(before[version]), percent(after[version]))
	}
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

// weightText is the weight of an endpoint, before and after where these differ; "" for a sum of several.
func weightText(e edit.CallShare) string {
	switch e.WeightAfter {
	case 0:
		return ""
	case e.Weight:
		return strconv.FormatUint(uint64(e.Weight), 10)
	}
	return fmt.Sprintf("%d -> %d", e.Weight, e.WeightAfter)
}

// together returns the endpoints with those of a zone summed up, where many change, or many stay. A sum has no address,
// and a weight where all have the same.
func together(endpoints []edit.CallShare) (rows []edit.CallShare) {
	type alike struct {
		zone, version, status, cause string
		changes, drains              bool
	}
	groupOf := func(e edit.CallShare) alike { return alike{e.Zone, e.Version, e.Status, e.Cause, e.Changes, e.Drains} }
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
			e.ID, e.Addr = fmt.Sprintf("(%d endpoints)", n), ""
			rows = append(rows, e)
		default:
			if rows[at].Weight != e.Weight || rows[at].WeightAfter != e.WeightAfter {
				rows[at].Weight, rows[at].WeightAfter = 0, 0
			}
			rows[at].Before += e.Before
			rows[at].After += e.After
			rows[at].ZoneBefore += e.ZoneBefore
			rows[at].ZoneAfter += e.ZoneAfter
		}
	}
	return rows
}

// emptied returns the zones that have a serving endpoint with a share before, and no share after.
func emptied(endpoints []edit.CallShare) (zones []string) {
	after := make(map[string]float64)
	for _, e := range endpoints {
		after[e.Zone] += e.After
	}
	for _, e := range endpoints {
		if e.Zone != "" && e.Status == rollcall.StatusServing && e.Before > 0 && after[e.Zone] == 0 && !slices.Contains(zones, e.Zone) {
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
