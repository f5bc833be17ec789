// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

type serviceList struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Revision   int64               `json:"revision"`
	Services   []inventory.Service `json:"services"`
}

func newLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [PREFIX]",
		Aliases: []string{"list"},
		Short:   "List services",
		Long: "ls lists the services whose keys start with PREFIX, or all, and counts their instances:\n" +
			"how many are serving and draining, and how many are invalid, which clients leave out\n" +
			"(rollcall get tells why). A key is split into SERVICE/ID at its last \"/\". -o name has\n" +
			"the names alone, -o wide also the revision of the last change.",
		Example:     "  rollcall ls\n  rollcall ls team-a/\n  rollcall ls -o json | jq -r '.services[] | select(.serving == 0).service'",
		Args:        usageArgs(cobra.MaximumNArgs(1)),
		Annotations: outputs("table", "wide", "json", "yaml", "name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ls(cmd.Context(), strings.Join(args, ""))
		},
	}
}

func (a *app) ls(ctx context.Context, prefix string) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := dir.ListPrefix(ctx, prefix)
		if err != nil {
			return fmt.Errorf("list keys under %q: %w", prefix, err)
		}
		list := serviceList{APIVersion: apiVersion, Kind: "ServiceList", Revision: snap.Revision(), Services: inventory.Services(snap)}
		return a.printServices(prefix, list)
	})
}

func (a *app) printServices(prefix string, list serviceList) error {
	names := make([]string, 0, len(list.Services))
	for _, s := range list.Services {
		names = append(names, s.Service)
	}
	return a.print(list, names, func() string {
		if len(list.Services) == 0 {
			which := ""
			if prefix != "" {
				which = fmt.Sprintf("start with %q ", prefix)
			}
			a.say("no services %sat revision %d", which, list.Revision)
			return ""
		}
		rows := [][]string{{"SERVICE", "INSTANCES", "SERVING", "DRAINING", "INVALID", "ZONES"}}
		for _, s := range list.Services {
			rows = append(rows, []string{s.Service, strconv.Itoa(s.Instances), strconv.Itoa(s.Serving), dash(s.Draining), dash(s.LeftOut()),
				strings.Join(s.ShownZones(), ",")})
		}
		if a.output == "wide" {
			rows[0] = slices.Insert(rows[0], 5, "MOD")
			for i, s := range list.Services {
				rows[i+1] = slices.Insert(rows[i+1], 5, strconv.FormatInt(s.ModRevision, 10))
			}
		}
		return a.fitted(rows)
	})
}
