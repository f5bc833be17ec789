// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// allServicesHelp is what the help of a command that writes tells of --all-services.
const allServicesHelp = "--all-services, with a selector and without SERVICE, changes the endpoints of all services. They are\n" +
	"checked first, and if one is refused nothing is written; then one service after the other is\n" +
	"changed. --dry-run has a row a service: how many ENDPOINTS change, how many are SERVING now and\n" +
	"AFTER, which share of the calls would be MOVED, and why it is REFUSED."

// editList lists what was changed of each service.
type editList struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Edits      []edited `json:"edits"`
}

// editPreviewList is what a change would do to the calls of each service.
type editPreviewList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Revision   int64         `json:"revision"`
	Previews   []editPreview `json:"previews"`
}

// plannedEdit is a change to the endpoints of one service of many.
type plannedEdit struct {
	edit.Part
	preview editPreview
	same    []edit.Key // that are already what they are to be
}

// editAll makes a change to the endpoints of all services that are selected, one service after the other; if one may
// not be changed, none is. There is no deadline for the whole, but one a service.
func (a *app) editAll(ctx context.Context, which selection, e metadataEdit) error {
	selector, err := which.selector()
	if err != nil {
		return err
	}
	return a.talk(ctx, func(listing context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := list(listing, dir, "")
		if err != nil {
			return err
		}
		keys, err := edit.Selected(selector)(snap)
		if err != nil {
			return notFound(listing, client, err)
		}
		if keys, err = ofServices(keys); err != nil {
			return err
		}
		plan, refused := planEdits(snap, keys, e)
		switch {
		case e.dryRun:
			return cmp.Or(a.printPlan(snap.Revision(), plan, e), refused)
		case refused != nil:
			return refused
		}
		// A service comes after those within it: what is told of it is then so in the end.
		slices.SortFunc(plan, func(x, y plannedEdit) int { return strings.Compare(x.Service+"\xff", y.Service+"\xff") })
		done, err := a.applyAll(ctx, dir, plan, selector, e)
		slices.SortFunc(done, func(x, y edit.Change) int { return strings.Compare(x.Before.Service(), y.Before.Service()) })
		if len(done) == 0 {
			return err
		}
		if err := cmp.Or(a.printEdits(done, e.already), err); err != nil {
			return err
		}
		if e.then != nil {
			ending, cancel := a.deadline(ctx)
			defer cancel()
			e.then(ending, client, changedServices(done))
		}
		return nil
	})
}

// ofServices returns the keys without those that are of no service that could be asked for, such as one without "/".
func ofServices(keys []edit.Key) (of []edit.Key, err error) {
	for _, k := range keys {
		service, _ := rollcall.SplitKey(k.Key)
		if _, err := rollcall.ParseService(service); err == nil {
			of = append(of, k)
		}
	}
	if len(of) == 0 {
		return nil, fail(exitNotFound, "what is selected is of no service: %s", strconv.Quote(keys[0].Key))
	}
	return of, nil
}

// planEdits returns what a change of keys does to each service, and why it must not be made to some of them.
func planEdits(snap *rollcall.Snapshot, keys []edit.Key, e metadataEdit) (plan []plannedEdit, refused error) {
	var last *edit.LastServingError
	if e.check != nil {
		if _, refused = e.check(snap, keys); errors.As(refused, &last) {
			refused = fail(exitOther, "%w; or use --force, or leave these to serve and drain the other services by their names; nothing was written", last)
		}
	}
	policies := make(map[string]edit.Policy)
	for _, config := range snap.ServiceConfigs() {
		policies[config.Service] = edit.PolicyOf(config)
	}
	for _, part := range edit.Parts(snap, keys) {
		policy, ok := policies[part.Service]
		if !ok {
			policy = edit.PolicyOf(nil)
		}
		preview, err := edit.PreviewField(part.Service, part.Instances, part.Keys, e.field, e.value, policy.Weighting)
		p := plannedEdit{part, newEditPreview(e.preview, part.Service, snap.Revision(), policy, preview), preview.Same}
		switch {
		case err != nil:
			serving := len(edit.TakingCalls(slices.Values(part.Instances), nil))
			p.preview.Serving, p.preview.ServingAfter = serving, serving
			p.preview.Refused, p.preview.Endpoints = err.Error(), []edit.CallShare{}
			refused = cmp.Or(refused, fail(exitOther, "%w; nothing was written", err))
		case last != nil && slices.Contains(last.Services, part.Service):
			p.preview.Refused = "no other endpoint is serving"
		}
		plan = append(plan, p)
	}
	return plan, refused
}

// applyAll makes a planned change, and returns what was done to each service. What has gone meanwhile is left out.
func (a *app) applyAll(ctx context.Context, dir *rollcall.Directory, plan []plannedEdit, selector rollcall.Selector, e metadataEdit) (all []edit.Change, err error) {
	for i, p := range plan {
		done, err := a.applyPart(ctx, dir, edit.SelectedOf(p.Service, selector), p, e)
		if len(done.Written) > 0 {
			all = append(all, done)
		}
		var gone *edit.NotFoundError
		switch {
		case errors.As(err, &gone) && len(done.Written) == 0:
			a.say("%v: it has gone meanwhile", err)
		case err != nil:
			err = halfWay(err, all, plan[i:])
			if isSignal(context.Cause(ctx)) { // which ends a command without a message
				a.say("%v", err)
			}
			return all, err
		}
	}
	if len(all) == 0 {
		return nil, fail(exitNotFound, "nothing that was selected is there any more")
	}
	return all, nil
}

func (a *app) applyPart(ctx context.Context, dir *rollcall.Directory, find edit.Finder, p plannedEdit, e metadataEdit) (edit.Change, error) {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	return edit.Apply(ctx, dir, p.Service, find, e.check, edit.SetField(e.field, e.value))
}

// halfWay adds to an error which services were changed before it, the first few, since all are shown, and which were not.
// The first that is left may have been changed in part.
func halfWay(err error, done []edit.Change, left []plannedEdit) error {
	if len(done) == 0 {
		return fmt.Errorf("%w; no service was changed", err)
	}
	var not []string
	for _, p := range left {
		not = append(not, strconv.Quote(p.Service))
	}
	changed := changedServices(done)
	if changed[len(changed)-1] == left[0].Service {
		not[0] = "the rest of " + not[0]
	}
	return fmt.Errorf("%w; services changed: %s; not changed: %s", err, edit.Names(changed), strings.Join(not, ", "))
}

func changedServices(done []edit.Change) (services []string) {
	for _, c := range done {
		services = append(services, c.Before.Service())
	}
	return services
}

// printPlan shows a row a service of what a change would do.
func (a *app) printPlan(revision int64, plan []plannedEdit, e metadataEdit) error {
	list := editPreviewList{APIVersion: apiVersion, Kind: e.preview + "List", Revision: revision}
	rows := [][]string{{"SERVICE", "ENDPOINTS", "SERVING", "AFTER", "MOVED", "REFUSED"}}
	var same []edit.Key
	var outer []string
	endpoints, assumed := 0, false
	for _, p := range plan {
		list.Previews = append(list.Previews, p.preview)
		rows = append(rows, []string{p.Service, strconv.Itoa(p.Own), strconv.Itoa(p.preview.Serving), strconv.Itoa(p.preview.ServingAfter),
			percent(p.preview.Moved), p.preview.Refused})
		endpoints += p.Own
		assumed = assumed || p.preview.Weighting == edit.UnknownWeighting && p.preview.weightsDiffer()
		same = append(same, p.same...)
		if len(p.Nested()) > 0 {
			outer = append(outer, p.Service)
		}
	}
	slices.SortFunc(same, func(a, b edit.Key) int { return strings.Compare(a.Key, b.Key) })
	a.sayAlready(slices.CompactFunc(same, func(a, b edit.Key) bool { return a.Key == b.Key }), e.already)
	a.say("%s of %s would change; nothing was written", plural.Count(endpoints, "endpoint", "endpoints"), plural.Count(len(plan), "service", "services"))
	if len(outer) > 0 {
		a.say("SERVING, AFTER and MOVED are what clients see: those of %s call the endpoints of services within it as well", edit.Names(outer))
	}
	if assumed {
		a.say("where the service config does not tell the policy, shares go by weights; one that does not read them calls all endpoints alike")
	}
	if a.json() {
		return a.printJSON(list)
	}
	return a.write(a.fitted(rows))
}

// printEdits shows what was done to services.
func (a *app) printEdits(done []edit.Change, already string) error {
	list := editList{APIVersion: apiVersion, Kind: "EditList"}
	var instances []inventory.Instance
	var same []edit.Key
	var draining []string
	for _, c := range done {
		m, err := editOf(c.Before.Service(), c)
		if err != nil {
			return err
		}
		list.Edits = append(list.Edits, m.edited)
		instances, same = append(instances, m.Instances...), append(same, m.same...)
		if m.serving == 0 {
			draining = append(draining, m.Service)
		}
	}
	a.sayAlready(same, already)
	a.say("%s, of %s, one after the other", countChanged(len(instances)-len(same)), plural.Count(len(done), "service", "services"))
	if len(draining) > 0 {
		a.say("every endpoint of %s is draining: "+calledNevertheless, edit.Names(draining))
	}
	if a.json() {
		return a.printJSON(list)
	}
	return a.write(a.fitted(instanceRows(instances, time.Now(), instanceColumns{service: true})))
}
