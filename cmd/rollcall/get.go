// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// leaseWorkers is how many leases are looked up at once.
const leaseWorkers = 16

type instanceList struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Service    string `json:"service"`
	snapshot
	ServiceConfig *serviceConfig `json:"serviceConfig,omitempty"`
}

func newInstanceList(service string, v snapshot) instanceList {
	return instanceList{APIVersion: apiVersion, Kind: "InstanceList", Service: service, snapshot: v}
}

func newGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get SERVICE",
		Short: "Show the endpoints of a service",
		Long: "get shows every key under SERVICE/: the endpoints with their leases, the keys that\n" +
			"clients leave out, with the cause, and the service config. If there is no key at all,\n" +
			"the exit code is 3. Tables shorten long metadata; JSON has all of it, and keyBase64\n" +
			"beside each key that is not UTF-8.",
		Example: "  rollcall get my-service\n  rollcall get my-service -o json | jq -r '.instances[].addr'",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			return a.get(cmd.Context(), service)
		},
	}
}

func (a *app) get(ctx context.Context, service string) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := dir.List(ctx, service)
		if err != nil {
			return fmt.Errorf("list service %q: %w", service, err)
		}
		if snap.Len()+len(snap.Invalid()) == 0 {
			return fail(exitNotFound, "service %q not found: no key under %q at revision %d; see rollcall ls",
				service, snap.Prefix(), snap.Revision())
		}
		v := render(snap, of(service))
		if err := a.fillTTL(ctx, client, v); err != nil {
			return err
		}
		list := newInstanceList(service, v)
		if config, err := dir.ServiceConfig(ctx, service); err != nil {
			a.say("%s", plain(err))
		} else {
			list.ServiceConfig = renderConfig(config)
		}
		return a.printInstances(list)
	})
}

// fillTTL looks up the granted TTL of each lease. Where etcd does not tell it, it is left
// out and a message says so.
func (a *app) fillTTL(ctx context.Context, client *clientv3.Client, v snapshot) error {
	rows := make(map[string][]*instance)
	for i := range v.Instances {
		rows[v.Instances[i].Lease] = append(rows[v.Instances[i].Lease], &v.Instances[i])
	}
	for i := range v.Disallowed {
		rows[v.Disallowed[i].Lease] = append(rows[v.Disallowed[i].Lease], &v.Disallowed[i].instance)
	}
	delete(rows, "")
	var wg sync.WaitGroup
	slots := make(chan struct{}, leaseWorkers)
	causes := make(chan error, len(rows))
	for lease, instances := range rows {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			granted, err := grantedTTL(ctx, client, lease)
			for _, inst := range instances {
				inst.TTL = granted
			}
			if err != nil {
				causes <- err
			}
		})
	}
	wg.Wait()
	close(causes)
	if cause := context.Cause(ctx); isSignal(cause) {
		return cause
	}
	if cause, ok := <-causes; ok {
		a.say("cannot look up the TTL of %d leases: %s", len(causes)+1, plain(cause))
	}
	return nil
}

// grantedTTL returns the seconds that a lease was granted, 0 if it has ended.
func grantedTTL(ctx context.Context, client *clientv3.Client, lease string) (int64, error) {
	id, err := strconv.ParseInt(lease, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("lease %q: %w", lease, err)
	}
	resp, err := client.TimeToLive(ctx, clientv3.LeaseID(id))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up lease %s: %w", lease, err)
	}
	return resp.GrantedTTL, nil
}

func (a *app) printInstances(list instanceList) error {
	if a.json() {
		return a.printJSON(list)
	}
	var b strings.Builder
	if len(list.Instances) > 0 {
		rows := [][]string{{"ID", "ADDR", "METADATA", "LEASE", "TTL", "MOD"}}
		for _, i := range list.Instances {
			rows = append(rows, []string{i.ID, i.Addr, metadataText(i.Metadata), i.Lease, ttlText(i.TTL), strconv.FormatInt(i.ModRevision, 10)})
		}
		b.WriteString(table(rows...))
	}
	if left := leftOutTable(list.snapshot); left != "" {
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		b.WriteString(left)
	}
	if config := list.ServiceConfig; config != nil {
		state := "valid"
		if config.Cause != "" {
			state = "invalid: " + config.Cause
		}
		b.WriteString("\n" + table([]string{"SERVICE CONFIG", "MOD"}, []string{state, strconv.FormatInt(config.ModRevision, 10)}))
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}
