// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func newGet(a *app) *cobra.Command {
	var which selection
	cmd := &cobra.Command{
		Use:   "get SERVICE [ID|HOST:PORT]...",
		Short: "Show the endpoints of a service, or of all",
		Long: "get shows every key under SERVICE/: the endpoints with what is left of their leases, the\n" +
			"keys that clients leave out, with the cause, and the service config. AGE is that of the\n" +
			"process, if its metadata has \"started\". If there is no key at all, the exit code is 3.\n" +
			"On a terminal, what is too wide is cut with a … at its end; -o wide cuts nothing and adds\n" +
			"leases and revisions. JSON and YAML have all metadata, and keyBase64 beside each key that\n" +
			"is not UTF-8; -o name has the ids alone.\n\n" +
			"With ids, addresses or a selector it shows those endpoints alone, without the service config.\n" +
			selectorHelp + "\n\n" +
			"--all-services shows those of all services, without service configs; -o name has the keys.",
		Example:     "  rollcall get my-service\n  rollcall get my-service blue-1 -o wide\n  rollcall get my-service -l zone=eu-1 -l zone=eu-2\n  rollcall get -A -l host=node-11\n  rollcall get my-service -o json | jq -r '.instances[] | select(.status == \"serving\").addr'",
		Args:        usageArgs(which.optionalArgs),
		Annotations: outputs("table", "wide", "json", "yaml", "name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, find, err := which.parse(args)
			if err != nil {
				return err
			}
			return a.get(cmd.Context(), service, find)
		},
	}
	which.addFlag(cmd.Flags())
	which.addAllServicesFlag(cmd.Flags())
	return cmd
}

// get shows the endpoints of a service, or of all for "", that are found; with a nil find all, and the service config.
func (a *app) get(ctx context.Context, service string, find edit.Finder) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := list(ctx, dir, service)
		if err != nil {
			return err
		}
		list := newInstanceList(service, snap)
		if list.Instances, err = foundRows(ctx, client, snap, list.Instances, find); err != nil {
			return err
		}
		ttls, err := inventory.LookUp(ctx, client, inventory.Leases(list.Instances))
		if cause := context.Cause(ctx); isSignal(cause) {
			return cause
		}
		if err != nil {
			a.say("%s", a.reason(err))
		}
		inventory.SetTTLs(list.Instances, ttls)
		if find != nil || service == "" {
			return a.printInstances(list)
		}
		if config, err := dir.ServiceConfig(ctx, service); err != nil {
			a.say("%s", a.reason(err))
		} else {
			list.ServiceConfig = renderConfig(config)
		}
		return a.printInstances(list)
	})
}

// list lists a service, or all for ""; one without any key is an error.
func list(ctx context.Context, dir *rollcall.Directory, service string) (snap *rollcall.Snapshot, err error) {
	if service == "" {
		snap, err = dir.ListPrefix(ctx, "")
	} else {
		snap, err = dir.List(ctx, service)
	}
	switch {
	case err != nil && service == "" && notPermitted(err):
		return nil, fmt.Errorf("list all services: %w; for those that may be read, name a SERVICE", err)
	case err != nil && service == "":
		return nil, fmt.Errorf("list all services: %w", err)
	case err != nil:
		return nil, fmt.Errorf("list service %q: %w", service, err)
	}
	if snap.Len()+len(snap.Invalid()) == 0 {
		return nil, notFound(ctx, dir.Client(), &edit.NotFoundError{Service: service, Revision: snap.Revision(), NoService: true})
	}
	return snap, nil
}

func (a *app) printInstances(list instanceList) error {
	name := func(i inventory.Instance) string { return i.ID }
	if list.Service == "" {
		name = func(i inventory.Instance) string { return i.Key }
	}
	names := make([]string, 0, len(list.Instances))
	for _, i := range list.Instances {
		names = append(names, name(i))
	}
	return a.print(list, names, func() string {
		columns := instanceColumns{service: list.Service == "", ttl: true, wide: a.output == "wide"}
		parts := []string{a.fitted(instanceRows(list.Instances, time.Now(), columns))}
		if left := leftOutTable(list.Instances, name); left != "" {
			parts = append(parts, left)
		}
		if ignored := ignoredTable(list.Instances, name); ignored != "" {
			parts = append(parts, ignored)
		}
		if config := list.ServiceConfig; config != nil {
			state := "valid"
			if config.Cause != "" {
				state = "invalid: " + config.Cause
			}
			parts = append(parts, table([]string{"SERVICE CONFIG", "MOD"}, []string{state, strconv.FormatInt(config.ModRevision, 10)}))
		}
		return strings.Join(parts, "\n")
	})
}

// instanceColumns are the columns of a table of instances that not all have.
type instanceColumns struct {
	service bool
	ttl     bool // what is left of the lease, which must have been looked up: "-" is no lease
	wide    bool // the lease and the revision
}

// instanceRows is the table of a service's keys; the last column may be long.
func instanceRows(instances []inventory.Instance, now time.Time, columns instanceColumns) [][]string {
	header := []string{"ID", "ADDRESS", "STATUS", "WEIGHT", "ZONE", "VERSION", "AGE"}
	if columns.ttl || columns.wide {
		header = append(header, "TTL")
	}
	if columns.wide {
		header = append(header, "LEASE", "MOD")
	}
	if columns.service {
		header = slices.Insert(header, 0, "SERVICE")
	}
	rows := [][]string{append(header, "METADATA")}
	for _, i := range instances {
		row := []string{i.ID, i.Addr, string(i.Status), dash(int(i.Weight)), i.Zone, i.Version, inventory.Age(i.Started, now)}
		switch {
		case columns.wide:
			row = append(row, i.TTLText(), i.Lease, strconv.FormatInt(i.ModRevision, 10))
		case columns.ttl:
			row = append(row, i.LeftText())
		}
		if columns.service {
			row = slices.Insert(row, 0, i.Service)
		}
		rows = append(rows, append(row, otherFields(i)))
	}
	return rows
}

// otherFields is the metadata that has no column of its own.
func otherFields(i inventory.Instance) string {
	var fields []string
	for _, field := range i.OtherFields() {
		fields = append(fields, field.String())
	}
	return strings.Join(fields, " ")
}
