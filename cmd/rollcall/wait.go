// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// awaited is what was waited for, as it was found.
type awaited struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision  int64 `json:"revision"`
	Instances int   `json:"instances"`
	Serving   int   `json:"serving"`
}

// waitFlags are what to wait for.
type waitFlags struct {
	count   int
	serving bool
	gone    bool
	timeout time.Duration
	find    edit.Finder  // the endpoints that count, as they are now; nil: all
	filter  changeFilter // the same, whenever they come
}

func newWait(a *app) *cobra.Command {
	var f waitFlags
	var which selection
	cmd := &cobra.Command{
		Use:   "wait SERVICE [ID|HOST:PORT]...",
		Short: "Wait until a service has endpoints, or none",
		Long: "wait returns as soon as SERVICE has --count endpoints or more; with --serving, as many that are\n" +
			"not draining and whose address clients may call; with --gone, no key at all. On a terminal it\n" +
			"says what it waits for. If that has not come after --timeout, the exit code is 6. While etcd is\n" +
			"unreachable wait goes on; at its start etcd must answer, else the exit code is 4.\n\n" +
			"With ids, addresses or a selector those endpoints alone count.\n" + selectorHelp,
		Example: "  rollcall wait my-service --count 3 --serving --timeout 60s\n  rollcall wait my-service -l version=v2 --count 3 --serving\n" +
			"  rollcall wait my-service --gone --timeout 30s",
		Args: usageArgs(which.optionalArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, find, filter, err := which.parseChanges(args)
			f.find, f.filter = find, filter
			switch {
			case err != nil:
				return err
			case f.count < 1:
				return fail(exitUsage, "--count %d: must be 1 or more; to wait for the end of a service, see --gone", f.count)
			case f.gone && (f.serving || cmd.Flags().Changed("count")):
				return fail(exitUsage, "--gone waits for no endpoint at all; give it without --count and --serving")
			case f.timeout <= 0:
				return fail(exitUsage, "--timeout %v: must be positive, such as 60s", f.timeout)
			}
			return a.wait(cmd.Context(), service, f)
		},
	}
	which.addFlag(cmd.Flags())
	cmd.Flags().IntVar(&f.count, "count", 1, "how many endpoints to wait for")
	cmd.Flags().BoolVar(&f.serving, "serving", false, "count those alone that clients send new calls to")
	cmd.Flags().BoolVar(&f.gone, "gone", false, "wait until there is no key of the service")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait at most")
	return cmd
}

func (a *app) wait(ctx context.Context, service string, f waitFlags) error {
	waiting, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	subscribe := func(dir *rollcall.Directory) (*rollcall.Subscription, error) { return dir.Subscribe(service) }
	return a.follow(ctx, fmt.Sprintf("service %q", service), subscribe, func(dir *rollcall.Directory, sub *rollcall.Subscription, snap *rollcall.Snapshot) error {
		if f.gone && f.met(snap) {
			a.sayMissing(ctx, dir.Client(), snap, f.find)
		}
		told := ""
		for !f.met(snap) {
			if text := f.text(service, snap); text != told && isTerminal(a.stderr) {
				a.say("waiting for %s", text)
				told = text
			}
			next, err := sub.Next(waiting)
			switch {
			case waiting.Err() != nil && ctx.Err() == nil:
				a.say("not within %v: %s", f.timeout, f.text(service, snap))
				if snap.Staleness() == nil && !f.gone {
					a.sayMissing(ctx, dir.Client(), snap, f.find)
				}
				return &exitError{code: exitTimeout}
			case err != nil:
				return err
			}
			snap = next
		}
		return a.printAwaited(awaited{APIVersion: apiVersion, Kind: "Wait", serviceName: nameOf(service), Revision: snap.Revision(),
			Instances: f.instances(snap), Serving: f.servingOf(snap)})
	})
}

// met reports whether a snapshot is what is waited for. What is stale may be over.
func (f waitFlags) met(snap *rollcall.Snapshot) bool {
	switch {
	case snap.Staleness() != nil:
		return false
	case f.gone:
		return f.keys(snap) == 0
	}
	return f.counted(snap) >= f.count
}

// countOf returns how many of some instances count.
func (f waitFlags) countOf(instances iter.Seq[*rollcall.Instance]) (n int) {
	for inst := range instances {
		if f.filter.matches(rollcall.Change{Key: inst.Key, New: inst}) {
			n++
		}
	}
	return n
}

func (f waitFlags) instances(snap *rollcall.Snapshot) int { return f.countOf(snap.All()) }

func (f waitFlags) servingOf(snap *rollcall.Snapshot) int {
	return f.countOf(slices.Values(edit.TakingCalls(snap.All(), nil)))
}

func (f waitFlags) keys(snap *rollcall.Snapshot) int {
	n := f.instances(snap)
	for _, invalid := range snap.Invalid() {
		if f.filter.matches(rollcall.Change{Key: invalid.Key}) {
			n++
		}
	}
	return n
}

func (f waitFlags) counted(snap *rollcall.Snapshot) int {
	if f.serving {
		return f.servingOf(snap)
	}
	return f.instances(snap)
}

// text tells what is waited for and how far it is.
func (f waitFlags) text(service string, snap *rollcall.Snapshot) string {
	stale := ""
	if s := snap.Staleness(); s != nil {
		stale = ", as far as is known: " + plain(s.Cause)
	}
	of := fmt.Sprintf("service %q", service)
	if f.filter != nil {
		of = "what is asked for of " + of
	}
	if f.gone {
		return fmt.Sprintf("%s to be gone; it has %s%s", of, plural.Count(f.keys(snap), "key", "keys"), stale)
	}
	what := plural.Count(f.count, "endpoint", "endpoints")
	if f.serving {
		what = plural.Count(f.count, "serving endpoint", "serving endpoints")
	}
	return fmt.Sprintf("%s of %s; it has %d%s", what, of, f.counted(snap), stale)
}

func (a *app) printAwaited(w awaited) error {
	if a.json() {
		return a.printJSON(w)
	}
	return a.write(table([]string{"SERVICE", "INSTANCES", "SERVING", "REVISION"},
		[]string{w.Service, strconv.Itoa(w.Instances), strconv.Itoa(w.Serving), strconv.FormatInt(w.Revision, 10)}))
}
