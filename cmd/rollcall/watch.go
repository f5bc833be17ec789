// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// reasonTimeout bounds the question why endpoints went: the events after it wait.
const reasonTimeout = 500 * time.Millisecond

func newWatch(a *app) *cobra.Command {
	var which selection
	cmd := &cobra.Command{
		Use:   "watch SERVICE [ID|HOST:PORT]...",
		Short: "Follow the endpoints of a service",
		Long: "watch shows the endpoints of a service and then every change until it is interrupted:\n" +
			"= was there, + added, ~ changed (and what), - removed. What was removed has left (it was\n" +
			"draining), expired (its lease is gone) or was deleted by hand (no lease ended), as far as etcd\n" +
			"can tell. JSON has the endpoints on the first line, then an event a line, with its time and what\n" +
			"a changed endpoint was before. Changes in quick succession may be shown as one. While etcd is unreachable,\n" +
			"watch says so on stderr, waits and goes on.\n\n" +
			"With ids, addresses or a selector it shows those endpoints alone, whether they are there yet or\n" +
			"not. A change is shown if its endpoint matches before it or after it; a name stands for the\n" +
			"endpoint of that id and for all at that address.\n" + selectorHelp,
		Example: "  rollcall watch my-service\n  rollcall watch my-service blue-1\n  rollcall watch my-service -l zone=eu-1\n  rollcall watch my-service -o json | jq -r 'select(.type == \"PUT\").instance.addr'",
		Args:    usageArgs(which.optionalArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, find, filter, err := which.parseChanges(args)
			if err != nil {
				return err
			}
			return a.watch(cmd.Context(), watching{a: a, service: service, find: find, filter: filter})
		},
	}
	which.addFlag(cmd.Flags())
	return cmd
}

func (a *app) watch(ctx context.Context, w watching) error {
	subscribe := func(dir *rollcall.Directory) (*rollcall.Subscription, error) { return dir.Subscribe(w.service) }
	return a.follow(ctx, fmt.Sprintf("service %q", w.service), subscribe, func(dir *rollcall.Directory, sub *rollcall.Subscription, snap *rollcall.Snapshot) error {
		w.dir = dir
		if err := w.start(ctx, snap); err != nil {
			return err
		}
		for {
			next, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			if err := w.step(ctx, snap, next); err != nil {
				return err
			}
			snap = next
		}
	})
}

// follow subscribes to something and calls f with its first snapshot, which has to come in time.
func (a *app) follow(ctx context.Context, what string, subscribe func(*rollcall.Directory) (*rollcall.Subscription, error),
	f func(*rollcall.Directory, *rollcall.Subscription, *rollcall.Snapshot) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	starting, cancel := a.deadline(ctx)
	defer cancel()
	if err := connect(starting, client); err != nil {
		return err
	}
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		return err
	}
	defer dir.Close()
	sub, err := subscribe(dir)
	if err != nil {
		return err
	}
	snap, err := first(starting, sub)
	if err != nil {
		return fmt.Errorf("watch %s: %w", what, err)
	}
	return f(dir, sub, snap)
}

// first waits for a subscription's first snapshot. An error that may pass is returned only
// when ctx ends.
func first(ctx context.Context, sub *rollcall.Subscription) (*rollcall.Snapshot, error) {
	snap, err := sub.First(ctx)
	switch {
	case isSignal(context.Cause(ctx)):
		return nil, context.Cause(ctx)
	case ctx.Err() != nil && sub.Err() != nil:
		return nil, sub.Err()
	}
	return snap, err
}

// watching prints a watch.
type watching struct {
	a        *app
	dir      *rollcall.Directory
	service  string
	find     edit.Finder  // what is to be there, to begin with; nil: anything
	filter   changeFilter // what it shows; nil: everything
	id, addr int          // widths of the columns so far
}

// events returns the changes from old to snap that it shows.
func (w *watching) events(old, snap *rollcall.Snapshot) []inventory.Event {
	return slices.DeleteFunc(inventory.Events(old, snap, inventory.Under(w.service)), func(e inventory.Event) bool { return !w.filter.matches(e.Change) })
}

func (w *watching) start(ctx context.Context, snap *rollcall.Snapshot) error {
	if w.a.json() {
		list := newInstanceList(w.service, snap)
		list.Instances = slices.DeleteFunc(list.Instances, func(i inventory.Instance) bool {
			return !w.filter.matches(rollcall.Change{Key: i.Key, New: snap.Instance(i.Key)})
		})
		if err := w.a.printLine(list); err != nil {
			return err
		}
	} else {
		events := w.events(nil, snap)
		w.a.say("following %q from revision %d; endpoints now: %d", w.service, snap.Revision(), len(events))
		for i := range events {
			events[i].Sign = "=" // it has been there
		}
		if err := w.print(events); err != nil {
			return err
		}
	}
	w.notices(&rollcall.Snapshot{}, snap)
	if snap.Staleness() == nil {
		w.a.sayMissing(ctx, w.dir.Client(), snap, w.find)
	}
	return nil
}

func (w *watching) step(ctx context.Context, old, snap *rollcall.Snapshot) error {
	if snap.NewEpoch(old) {
		w.a.say("etcd lost its data or was restored from a backup; following its new content from revision %d", snap.Revision())
	}
	events := w.events(old, snap)
	asking, cancel := context.WithTimeout(ctx, reasonTimeout)
	inventory.Explain(asking, w.dir, events)
	cancel()
	if err := w.print(events); err != nil {
		return err
	}
	w.notices(old, snap)
	return nil
}

// watchLine is an event as a line of JSON.
type watchLine struct {
	inventory.Event
	Time    time.Time           `json:"time"`          // when it was seen
	Old     *inventory.Instance `json:"old,omitempty"` // for PUT, what it was before; nil: no endpoint
	Changes []fieldChange       `json:"changes,omitempty"`
}

func (w *watching) print(events []inventory.Event) (err error) {
	now := time.Now()
	for _, e := range events {
		if w.a.json() {
			line := watchLine{Event: e, Time: now.UTC(), Changes: fieldChanges(e.Change)}
			if e.Change.New != nil {
				line.Old = instanceOf(e.Change.Old, inventory.Under(w.service))
			}
			err = w.a.printLine(line)
		} else {
			_, err = fmt.Fprintln(w.a.stdout, w.line(now, e))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line returns an event as a row. Columns only grow: the rows to come are not known.
func (w *watching) line(now time.Time, e inventory.Event) string {
	id, addr := safe(e.Instance.ID), safe(e.Instance.Addr)
	w.id, w.addr = max(w.id, printable.Width(id)), max(w.addr, printable.Width(addr))
	details := inventory.MetadataText(e.Instance.Metadata)
	if e.Change.Old != nil && e.Change.New != nil && e.Cause == "" {
		details = inventory.ChangeText(e.Change)
	}
	text := fmt.Sprintf("%s  %s %s  %s  %s", now.Format(time.TimeOnly), e.Sign, printable.Pad(id, w.id), printable.Pad(addr, w.addr), safe(details))
	text = strings.TrimRight(text, " ")
	switch {
	case e.Cause != "":
		text += "  (" + safe(oneLine(e.Cause)) + ")"
	case e.Reason != "":
		text += "  " + e.Reason.Explain()
	}
	return text
}

// notices reports on stderr what is not an event: staleness and invalid keys.
func (w *watching) notices(old, snap *rollcall.Snapshot) {
	was, is := old.Staleness(), snap.Staleness()
	switch {
	case is != nil && (was == nil || !was.Since.Equal(is.Since)):
		w.a.say("stale since %s: %s; showing the endpoints of that time", is.Since.Format(time.TimeOnly), plain(is.Cause))
	case is == nil && was != nil:
		w.a.say("up to date again, at revision %d", snap.Revision())
	}
	known := make(map[string]int64, len(old.Invalid()))
	for _, r := range old.Invalid() {
		known[r.Key] = r.ModRevision
	}
	for _, r := range snap.Invalid() {
		if known[r.Key] != r.ModRevision && w.filter.matches(rollcall.Change{Key: r.Key}) {
			w.a.say("invalid %q: %v", r.Key, r.Cause)
		}
	}
}
