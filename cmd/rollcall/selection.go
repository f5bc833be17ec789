// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// selection is the endpoints of a service that a command is about: those that its arguments name, or else those that
// --selector selects.
type selection struct {
	selectors []string
	all       bool // of all services: no SERVICE is given
}

func (s *selection) addFlag(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&s.selectors, "selector", "l", nil,
		"in place of ids, all endpoints with `FIELD=VALUE` in their metadata; may be repeated")
}

func (s *selection) addAllServicesFlag(flags *pflag.FlagSet) {
	flags.BoolVarP(&s.all, "all-services", "A", false, "in place of SERVICE, the endpoints of all services")
}

// selectorHelp is what the help of a command tells of --selector.
const selectorHelp = "--selector, in place of ids, selects endpoints by weight, region, zone, subzone, version, status or\n" +
	"host, as the query of a target does: of each field that is given, one of the values must match. A\n" +
	"host is that of the metadata or that of the address, such as host=node-11 or host=10.0.0.7."

// args checks arguments: SERVICE, ids unless there is a selector, and those that are named here. With --all-services there
// must be a selector, and neither SERVICE nor ids.
func (s *selection) args(others ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		want := append([]string{"SERVICE"}, others...)
		if s.all {
			want = others
		}
		switch {
		case s.all && len(args) > len(want):
			return errAllServices
		case s.all && len(s.selectors) == 0:
			return errors.New("--all-services needs --selector: which endpoints of all services are meant")
		case len(s.selectors) == 0:
			return cobra.MinimumNArgs(len(want)+1)(cmd, args)
		case len(args) < len(want):
			return fmt.Errorf("%s is missing", want[len(args)])
		case len(args) > len(want):
			return errors.New("--selector selects the endpoints: give no ids with it")
		}
		return nil
	}
}

var errAllServices = errors.New("--all-services is about all services: give neither SERVICE nor ids with it")

// optionalArgs checks arguments: SERVICE, unless all services are meant, and ids unless there is a selector; with neither,
// all endpoints are meant.
func (s *selection) optionalArgs(cmd *cobra.Command, args []string) error {
	switch {
	case s.all && len(args) > 0:
		return errAllServices
	case s.all, len(args) == 1:
		return nil
	}
	return s.args()(cmd, args)
}

// parse returns the service of some arguments, "" for all services, and what finds the endpoints; nil: neither ids nor a
// selector were given.
func (s *selection) parse(args []string) (service string, find edit.Finder, err error) {
	if s.all {
		find, err = s.finder(nil)
		return "", find, err
	}
	if service, err = checkNames(args[0], args[1:]); err != nil {
		return "", nil, err
	}
	find, err = s.finder(args[1:])
	return service, find, err
}

// parseForWrite is parse for a command that writes. An empty value, as of a variable that is not set, selects what has no
// such field: that is seldom meant, and much is written.
func (s *selection) parseForWrite(args []string) (service string, find edit.Finder, err error) {
	for _, text := range s.selectors {
		field, ok := strings.CutSuffix(text, "=")
		switch {
		case ok && s.all:
			return "", nil, fail(exitUsage, "--selector %q: the value is empty, which selects endpoints without %s", text, field)
		case ok:
			return "", nil, fail(exitUsage, "--selector %q: the value is empty, which selects endpoints without %s; give them by their ids", text, field)
		}
	}
	return s.parse(args)
}

func (s *selection) finder(names []string) (edit.Finder, error) {
	switch {
	case len(s.selectors) > 0:
		selector, err := s.selector()
		if err != nil {
			return nil, err
		}
		return edit.Selected(selector), nil
	case len(names) > 0:
		return edit.Named(names...), nil
	}
	return nil, nil
}

func (s *selection) selector() (rollcall.Selector, error) {
	query := make(url.Values)
	for _, text := range s.selectors {
		field, value, ok := strings.Cut(text, "=")
		if !ok || strings.HasSuffix(field, "!") || strings.HasPrefix(value, "=") {
			return rollcall.Selector{}, fail(exitUsage, "--selector %q: write FIELD=VALUE, such as zone=eu-1", text)
		}
		query.Add(field, value)
	}
	return rollcall.ParseSelector(query.Encode())
}

// changeFilter reports whether a change is of an endpoint that a command is about, before or after it.
type changeFilter func(rollcall.Change) bool

// matches is the filter's answer; with a nil filter, true.
func (f changeFilter) matches(c rollcall.Change) bool { return f == nil || f(c) }

// changes returns which changes are of endpoints that are named, by their ids or addresses, or selected; nil: neither
// names nor a selector was given.
func (s *selection) changes(service string, names []string) (changeFilter, error) {
	switch {
	case len(s.selectors) > 0:
		selector, err := s.selector()
		return ofInstances(selector.Matches), err
	case len(names) > 0:
		return ofNames(service, names), nil
	}
	return nil, nil
}

// parseChanges is parse for a command that follows the endpoints: filter is which changes are of them.
func (s *selection) parseChanges(args []string) (service string, find edit.Finder, filter changeFilter, err error) {
	if service, find, err = s.parse(args); err == nil {
		filter, err = s.changes(service, args[1:])
	}
	return service, find, filter, err
}

func ofInstances(match func(*rollcall.Instance) bool) changeFilter {
	return func(c rollcall.Change) bool { return c.Old != nil && match(c.Old) || c.New != nil && match(c.New) }
}

// ofNames takes ids also as they are shown where they have characters that cannot be printed.
func ofNames(service string, names []string) changeFilter {
	keys, escaped := make(map[string]bool), make(map[string]bool)
	for _, name := range names {
		key := rollcall.Key(service, name)
		keys[key] = true
		if strings.Contains(name, `\`) {
			escaped[key] = true
		}
	}
	atAddress := ofInstances(func(inst *rollcall.Instance) bool { return slices.Contains(names, inst.Addr) })
	return func(c rollcall.Change) bool {
		return keys[c.Key] || len(escaped) > 0 && escaped[printable.Escape(c.Key)] || atAddress(c)
	}
}

// foundRows returns those of a snapshot's rows whose keys are found; with a nil find all.
func foundRows(ctx context.Context, client *clientv3.Client, snap *rollcall.Snapshot, rows []inventory.Instance, find edit.Finder) ([]inventory.Instance, error) {
	if find == nil {
		return rows, nil
	}
	keys, err := find(snap)
	if err != nil {
		return nil, notFound(ctx, client, err)
	}
	found := make(map[string]bool, len(keys))
	for _, k := range keys {
		found[k.Key] = true
	}
	return slices.DeleteFunc(rows, func(i inventory.Instance) bool { return !found[i.Key] }), nil
}

// sayMissing tells what is not there, and may be misspelt: the service, or what find looks for in it; nil: nothing.
func (a *app) sayMissing(ctx context.Context, client *clientv3.Client, snap *rollcall.Snapshot, find edit.Finder) {
	if snap.Len()+len(snap.Invalid()) == 0 {
		a.sayLike(ctx, client, snap.Service())
		return
	}
	if find == nil {
		return
	}
	if _, err := find(snap); err != nil {
		a.say("%s", plain(notFound(ctx, client, err)))
	}
}

// selectorHint tells of several values, or fields, that were given as one.
func selectorHint(selector string) string {
	query, err := url.ParseQuery(selector)
	if err == nil && strings.ContainsAny(strings.Join(slices.Concat(slices.Collect(maps.Values(query))...), ""), ",&") {
		return "; a value is taken as it is: give each field, and each value, a --selector of its own"
	}
	return ""
}
