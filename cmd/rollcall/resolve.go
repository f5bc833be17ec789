// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// resolution is what a channel sees of a target.
type resolution struct {
	APIVersion    string               `json:"apiVersion"`
	Kind          string               `json:"kind"`
	Target        string               `json:"target"`
	Revision      int64                `json:"revision"`
	Instances     []inventory.Instance `json:"instances"`
	LeftOut       []leftOut            `json:"leftOut"`
	ServiceConfig json.RawMessage      `json:"serviceConfig,omitempty"`
}

// leftOut is a key that the channel does not get.
type leftOut struct {
	Key       string `json:"key"`
	KeyBase64 string `json:"keyBase64,omitempty"`
	Addr      string `json:"addr,omitempty"`
	Cause     string `json:"cause"`
}

func newResolve(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "resolve TARGET",
		Short: "Show what a gRPC channel would see",
		Long: "resolve passes a target to the resolver that gRPC channels use and shows the endpoints\n" +
			"that it returns, and what it leaves out and why. A bare name means etcd:///NAME. A\n" +
			"query selects by metadata: weight, region, zone, subzone, version, status, host (that of\n" +
			"the address, too). If there are no endpoints, the exit code is 3. Endpoints are sorted by\n" +
			"key here; each channel has an order of its own.",
		Example: "  rollcall resolve my-service\n  rollcall resolve 'my-service?zone=eu-1&zone=eu-2'\n" +
			"  rollcall resolve etcd:///team-a/my-service -o json",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			return a.resolve(cmd.Context(), target)
		},
	}
}

// parseTarget parses a target as gRPC does; a bare name is a service.
func parseTarget(text string) (grpcresolver.Target, error) {
	name, selector, _ := strings.Cut(text, "?")
	u := &url.URL{Scheme: resolver.Scheme, Path: "/" + name, RawQuery: selector}
	if strings.Contains(text, "://") || strings.HasPrefix(text, resolver.Scheme+":/") {
		var err error
		if u, err = url.Parse(text); err != nil {
			return grpcresolver.Target{}, fail(exitUsage, "invalid target %q: %v; write etcd:///my-service", text, err)
		}
	}
	if u.Scheme != resolver.Scheme {
		return grpcresolver.Target{}, fail(exitUsage, "invalid target %q: its scheme is not etcd; write etcd:///my-service", text)
	}
	if _, _, err := resolver.ParseTarget(*u); err != nil {
		return grpcresolver.Target{}, err
	}
	return grpcresolver.Target{URL: *u}, nil
}

func (a *app) resolve(ctx context.Context, target grpcresolver.Target) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		// Ask the directory first: its errors have types, the resolver's have not.
		service, _, err := resolver.ParseTarget(target.URL)
		if err != nil {
			return err
		}
		sub, err := dir.Subscribe(service)
		if err != nil {
			return err
		}
		defer sub.Close()
		snap, err := first(ctx, sub)
		if err != nil {
			return fmt.Errorf("resolve %q: %w", service, err)
		}
		seen := &channel{answered: make(chan struct{}, 1)}
		builder, err := resolver.NewBuilder(client)
		if err != nil {
			return err
		}
		built, err := builder.Build(target, seen, grpcresolver.BuildOptions{})
		if err != nil {
			return fail(exitUsage, "%s", status.Convert(err).Message())
		}
		defer built.Close()
		select {
		case <-seen.answered:
		case <-ctx.Done():
			return fmt.Errorf("resolve %q: %w", service, context.Cause(ctx))
		}
		if seen.err != nil {
			hint := ""
			if snap.Len()+len(snap.Invalid()) == 0 {
				hint = likeServices(ctx, client, service)
			}
			return fail(exitNotFound, "%s%s; see rollcall ls", strings.TrimPrefix(status.Convert(seen.err).Message(), "rollcall: "), hint)
		}
		return a.printResolution(target.URL.String(), seen, snap)
	})
}

// channel is a grpcresolver.ClientConn that records the first result of its resolver.
type channel struct {
	answered chan struct{} // has one element once the result below is set
	told     bool
	state    grpcresolver.State
	config   json.RawMessage // the last valid one
	err      error
}

// UpdateState, ReportError and ParseServiceConfig are called by one goroutine.
func (c *channel) UpdateState(state grpcresolver.State) error {
	c.answer(func() { c.state = state })
	return nil
}

func (c *channel) ReportError(err error) { c.answer(func() { c.err = err }) }

func (c *channel) answer(record func()) {
	if !c.told {
		c.told = true
		record()
		c.answered <- struct{}{}
	}
}

// NewAddress is part of ClientConn; only old resolvers call it.
func (c *channel) NewAddress(addresses []grpcresolver.Address) {
	_ = c.UpdateState(grpcresolver.State{Addresses: addresses})
}

func (c *channel) ParseServiceConfig(text string) *serviceconfig.ParseResult {
	if err := resolver.CheckServiceConfig(text); err != nil {
		return &serviceconfig.ParseResult{Err: errors.New(inventory.Reason(err))}
	}
	if !c.told {
		c.config = json.RawMessage(text)
	}
	return &serviceconfig.ParseResult{}
}

// render compares the channel's endpoints with the service's snapshot.
func (c *channel) render(target string, snap *rollcall.Snapshot) resolution {
	split := inventory.Under(snap.Service())
	r := resolution{APIVersion: apiVersion, Kind: "Resolution", Target: target, Revision: snap.Revision(),
		Instances: []inventory.Instance{}, LeftOut: []leftOut{}}
	if c.state.ServiceConfig != nil {
		r.ServiceConfig = c.config
	}
	told := make(map[string]bool)
	for _, ep := range c.state.Endpoints {
		if inst := resolver.InstanceFromEndpoint(ep); inst != nil {
			told[inst.Key] = true
			r.Instances = append(r.Instances, inventory.Of(inst, split))
		}
	}
	slices.SortFunc(r.Instances, func(a, b inventory.Instance) int { return strings.Compare(a.Key, b.Key) })
	for _, i := range snap.Invalid() {
		r.LeftOut = append(r.LeftOut, leftOut{i.Key, inventory.Base64(i.Key), "", "invalid: " + i.Cause.Error()})
	}
	for inst := range snap.All() {
		if !told[inst.Key] {
			r.LeftOut = append(r.LeftOut, leftOut{inst.Key, inventory.Base64(inst.Key), inst.Addr, c.cause(inst)})
		}
	}
	slices.SortFunc(r.LeftOut, func(a, b leftOut) int { return strings.Compare(a.Key, b.Key) })
	return r
}

// cause returns why the channel did not get an instance.
func (c *channel) cause(inst *rollcall.Instance) string {
	for _, ep := range c.state.Endpoints {
		if other := resolver.InstanceFromEndpoint(ep); other != nil && other.Addr == inst.Addr {
			return fmt.Sprintf("same address as %q", other.Key)
		}
	}
	switch err := rollcall.HostPort(inst.Addr); {
	case err != nil:
		return "disallowed: " + inventory.Reason(err)
	case inst.Draining():
		return "draining"
	}
	return "not selected by the target"
}

func (a *app) printResolution(target string, seen *channel, snap *rollcall.Snapshot) error {
	r := seen.render(target, snap)
	if a.json() {
		return a.printJSON(r)
	}
	if !slices.ContainsFunc(r.Instances, func(i inventory.Instance) bool { return i.Status != rollcall.StatusDraining }) {
		a.say("every endpoint of service %q that the target selects is draining: "+calledNevertheless, snap.Service())
	}
	rows := [][]string{{"ADDRESS", "KEY", "STATUS", "WEIGHT", "ZONE", "VERSION", "METADATA"}}
	for _, i := range r.Instances {
		rows = append(rows, []string{i.Addr, i.Key, string(i.Status), dash(int(i.Weight)), i.Zone, i.Version, otherFields(i)})
	}
	text := a.fitted(rows)
	if len(r.LeftOut) > 0 {
		rows = [][]string{{"LEFT OUT", "ADDRESS", "CAUSE"}}
		for _, l := range r.LeftOut {
			rows = append(rows, []string{l.Key, l.Addr, l.Cause})
		}
		text += "\n" + table(rows...)
	}
	if r.ServiceConfig != nil {
		text += "\nSERVICE CONFIG\n" + safe(oneLine(string(r.ServiceConfig))) + "\n"
	}
	_, err := fmt.Fprint(a.stdout, text)
	return err
}
