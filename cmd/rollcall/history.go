// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/plural"
	"github.com/rollcall-grpc/rollcall/internal/timeline"
)

type historyFlags struct {
	since    since
	revision int64
	admin    string
	timeout  time.Duration
	asked    bool // the user has given admin
}

// historyQuery is what a history is asked for.
type historyQuery struct {
	historyFlags
	service string
	names   []string // of endpoints; none: see which
	which   selection
	filter  changeFilter // the events that it shows; nil: all
}

func newHistory(a *app) *cobra.Command {
	var q historyQuery
	f, which := &q.historyFlags, &q.which
	cmd := &cobra.Command{
		Use:   "history SERVICE [ID|HOST:PORT]...",
		Short: "Show what happened to a service, as far as etcd remembers",
		Long: "history shows what came, changed, drained, left (it was draining), expired (its lease is\n" +
			"gone) or was deleted by hand, out of etcd's own memory, which reaches back to its last\n" +
			"compaction. Revisions are exact. Etcd keeps no times: those shown are what a running\n" +
			"rollcall serve, or the page of a rollcall dev, has seen and what \"started\" in the metadata\n" +
			"tells, as 12:03:04, or within 12:03:04..12:09:10, or before (<) or after (>) a time, or\n" +
			"unknown (-). --since leaves out what is known to be older. The etcd member reads all that it\n" +
			"remembers from the revision on, so on a large store give --revision.\n\n" +
			"With ids, addresses or a selector it shows what happened to those endpoints alone, without\n" +
			"the service config. A change is shown if its endpoint matches before it or after it; a name\n" +
			"stands for the endpoint of that id and for all at that address.\n" + selectorHelp,
		Example: "  rollcall history my-service\n  rollcall history my-service blue-1 --since 30m\n  rollcall history my-service --since 10:42\n  rollcall history my-service -l zone=eu-1\n" +
			"  rollcall history my-service --revision 812 -o json",
		Args: usageArgs(which.optionalArgs),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			q.names = args[1:]
			if q.service, _, q.filter, err = which.parseChanges(args); err != nil {
				return err
			}
			f.asked = cmd.Flags().Changed("admin")
			if err := f.validate(cmd.Flags().Changed("revision")); err != nil {
				return err
			}
			return a.history(cmd.Context(), q)
		},
	}
	which.addFlag(cmd.Flags())
	cmd.Flags().Var(&f.since, "since", "leave out what is known to be older: 30m, 10:42")
	cmd.Flags().Int64Var(&f.revision, "revision", 0, "begin with this revision (default: as far back as etcd remembers)")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "time within which etcd must have told its history")
	cmd.Flags().StringVar(&f.admin, "admin", defaultAdminAddr, `rollcall serve or dev on the same etcd, for times; none: ""`)
	return cmd
}

func (f *historyFlags) validate(revision bool) error {
	if f.timeout <= 0 {
		return fail(exitUsage, "--timeout %v: must be positive, such as 1m", f.timeout)
	}
	if revision && f.revision <= 0 {
		return fail(exitUsage, "--revision %d: must be at least 1", f.revision)
	}
	if f.admin == "" {
		return nil
	}
	return checkAdmin(&f.admin)
}

func (a *app) history(ctx context.Context, q historyQuery) error {
	h, err := a.replay(ctx, q)
	if err != nil {
		return err
	}
	points, err := a.points(ctx, q.historyFlags, h.Cluster)
	if err != nil {
		return err
	}
	now := time.Now()
	rows, doubtful := datedEvents(h, points, now, q)
	a.remark(h, q.historyFlags, doubtful)
	if a.json() {
		return a.printJSON(newHistoryDocument(h, rows))
	}
	a.explainTimes(rows, len(points) > 0)
	_, err = fmt.Fprint(a.stdout, historyTable(q.service, rows, now))
	return err
}

// replay connects to etcd within the dial timeout, and reads its history within a longer one: on a
// large store that takes time. A service without any is an error, and so are endpoints that are neither there nor in it.
func (a *app) replay(ctx context.Context, q historyQuery) (*rollcall.History, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	starting, cancel := a.deadline(ctx)
	err = connect(starting, client)
	cancel()
	if err != nil {
		return nil, err
	}
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return nil, err
	}
	reading, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	h, err := dir.History(reading, q.service, rollcall.HistoryOptions{From: q.revision})
	if err == nil && len(h.Events) == 0 && h.Keys == 0 {
		return nil, fail(exitNotFound, "service %q not found: no key under %q now, and none that etcd remembers from revision %d on%s; see rollcall ls",
			q.service, q.service+"/", h.First, likeServices(reading, client, q.service))
	}
	if err == nil {
		err = q.known(reading, dir, h)
	}
	if err != nil && reading.Err() != nil && ctx.Err() == nil {
		return nil, fail(exitTimeout, "etcd has not told its history within %v: give a later --revision, or a longer --timeout", q.timeout)
	}
	var missing *edit.NotFoundError
	if errors.As(err, &missing) {
		err = fail(exitNotFound, "%w%s", err, nearMiss(reading, client, missing))
	}
	return h, err
}

// known returns an error where neither an event nor a present endpoint has one of the names, or is selected.
func (q historyQuery) known(ctx context.Context, dir *rollcall.Directory, h *rollcall.History) error {
	happened := func(to changeFilter) bool {
		return slices.ContainsFunc(h.Events, func(e rollcall.HistoryEvent) bool { return to(e.Change) })
	}
	names := slices.DeleteFunc(slices.Clone(q.names), func(name string) bool { return happened(ofNames(q.service, []string{name})) })
	if len(names) == 0 && (q.filter == nil || happened(q.filter)) {
		return nil
	}
	find, err := q.which.finder(names)
	if err != nil {
		return err
	}
	snap, err := dir.List(ctx, q.service)
	if err != nil {
		return fmt.Errorf("list service %q: %w", q.service, err)
	}
	_, err = find(snap)
	var missing *edit.NotFoundError
	if errors.As(err, &missing) {
		missing.NoService = false // it has a history
		for _, e := range h.Events {
			if e.Config == nil {
				missing.IDs = append(missing.IDs, strings.TrimPrefix(e.Key, q.service+"/"))
			}
		}
		slices.Sort(missing.IDs)
		missing.IDs = slices.Compact(missing.IDs)
		err = fmt.Errorf("%w, nor had it since revision %d", err, h.First)
	}
	return err
}

// points asks a rollcall serve when etcd told which revision. None needs to be at the default address; what is
// there instead, or follows another etcd, a message names.
func (a *app) points(ctx context.Context, f historyFlags, cluster uint64) ([]timeline.Point, error) {
	if f.admin == "" {
		return nil, nil
	}
	body, err := a.fetch(ctx, f.admin, "/revisions")
	var list revisionList
	if err == nil && (json.Unmarshal(body, &list) != nil || list.Kind != "RevisionList") {
		err = fail(exitOther, "--admin %s: the answer is not that of a rollcall serve", f.admin)
	}
	if err == nil && list.Cluster != cluster && len(list.Points) > 0 {
		err = fail(exitOther, "--admin %s: that rollcall serve follows another etcd cluster, %x and not %x", f.admin, list.Cluster, cluster)
	}
	switch {
	case err == nil:
		return list.Points, nil
	case f.asked || isSignal(err):
		return nil, err
	case nobodyListens(err):
		return nil, nil
	}
	a.say("%s; going on without its times", plain(err))
	return nil, nil
}

// nobodyListens reports whether a connection could not be opened.
func nobodyListens(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// datedEvent is an event with when it happened.
type datedEvent struct {
	rollcall.HistoryEvent
	span timeline.Span
}

// datedEvents returns the events that are asked for and may have happened since, and of how many of
// these it is not known whether they have.
func datedEvents(h *rollcall.History, points []timeline.Point, now time.Time, q historyQuery) (rows []datedEvent, doubtful int) {
	limit := q.since.at
	for i, span := range timeline.Spans(h.Events, points, now) {
		switch {
		case !q.filter.matches(h.Events[i].Change):
			continue
		case !limit.IsZero() && !span.Before.IsZero() && span.Before.Before(limit):
			continue
		}
		if span.After.Before(limit) {
			doubtful++
		}
		rows = append(rows, datedEvent{h.Events[i], span})
	}
	return rows, doubtful
}

// explainTimes prints what the marks at times mean, where there are any.
func (a *app) explainTimes(rows []datedEvent, served bool) {
	switch {
	case !slices.ContainsFunc(rows, func(row datedEvent) bool { return !row.span.Precise() }):
	case served:
		a.say("TIME: > is after, < before, .. between two times, - unknown")
	default:
		a.say("TIME: > is after, - unknown; a rollcall serve that has been running since knows more: see --admin")
	}
}

// remark prints which part of the history is shown, and what is missing.
func (a *app) remark(h *rollcall.History, f historyFlags, doubtful int) {
	covers := fmt.Sprintf("%q from revision %d to %d", h.Service, h.First, h.Last)
	switch {
	case h.First > h.Last:
		compacted := ""
		if h.Compacted {
			compacted = "; what was before has been compacted in etcd"
		}
		a.say("nothing has happened from revision %d on: etcd is at revision %d%s", h.First, h.Last, compacted)
	case h.Omitted > 0:
		a.say("%s; %s left out", covers, plural.Count(h.Omitted, "older event is", "older events are"))
	case h.Compacted:
		a.say("%s; what was before has been compacted in etcd", covers)
	default:
		a.say("%s", covers)
	}
	if doubtful > 0 {
		a.say("%d of the events may have happened %s: when is not known", doubtful, f.since.before())
	}
	if h.ConfigErr != nil {
		a.say("without the service config: %s", a.reason(h.ConfigErr))
	}
}
