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
)

type serviceRow struct {
	Service       string `json:"service"`
	ServiceBase64 string `json:"serviceBase64,omitempty"` // where the name is not UTF-8
	Instances     int    `json:"instances"`
	Invalid       int    `json:"invalid"`
	Disallowed    int    `json:"disallowed"`
}

type serviceList struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Revision   int64        `json:"revision"`
	Services   []serviceRow `json:"services"`
}

func newLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [PREFIX]",
		Aliases: []string{"list"},
		Short:   "List services",
		Long: "ls lists the services whose keys start with PREFIX, or all, and counts what each has:\n" +
			"instances, invalid keys (their value is not an endpoint) and disallowed instances (their\n" +
			"address cannot be dialled). A key is split into SERVICE/ID at its last \"/\".",
		Example: "  rollcall ls\n  rollcall ls team-a/\n  rollcall ls -o json",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
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
		return a.printServices(prefix, services(render(snap, rollcall.SplitKey)))
	})
}

// services counts the keys of each service, sorted by name. Keys without a service and
// service configs are left out.
func services(v snapshot) serviceList {
	counts := make(map[string]*serviceRow)
	at := func(key, service string) *serviceRow {
		if service == "" || strings.HasPrefix(key, rollcall.ConfigPrefix) {
			return &serviceRow{}
		}
		if counts[service] == nil {
			counts[service] = &serviceRow{Service: service, ServiceBase64: base64Of(service)}
		}
		return counts[service]
	}
	for _, inst := range v.Instances {
		at(inst.Key, inst.Service).Instances++
	}
	for _, i := range v.Invalid {
		at(i.Key, i.Service).Invalid++
	}
	for _, d := range v.Disallowed {
		at(d.Key, d.Service).Disallowed++
	}
	list := serviceList{APIVersion: apiVersion, Kind: "ServiceList", Revision: v.Revision, Services: make([]serviceRow, 0, len(counts))}
	for _, row := range counts {
		list.Services = append(list.Services, *row)
	}
	slices.SortFunc(list.Services, func(a, b serviceRow) int { return strings.Compare(a.Service, b.Service) })
	return list
}

func (a *app) printServices(prefix string, list serviceList) error {
	if a.json() {
		return a.printJSON(list)
	}
	if len(list.Services) == 0 {
		which := ""
		if prefix != "" {
			which = fmt.Sprintf("start with %q ", prefix)
		}
		a.say("no services %sat revision %d", which, list.Revision)
		return nil
	}
	rows := [][]string{{"SERVICE", "INSTANCES", "INVALID", "DISALLOWED"}}
	for _, s := range list.Services {
		rows = append(rows, []string{s.Service, strconv.Itoa(s.Instances), strconv.Itoa(s.Invalid), strconv.Itoa(s.Disallowed)})
	}
	_, err := fmt.Fprint(a.stdout, table(rows...))
	return err
}
