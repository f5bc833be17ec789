// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/xds"
)

// xdsExplanation is what an xDS client is sent of a service.
type xdsExplanation struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Name       string          `json:"name"`
	Revision   int64           `json:"revision"`
	Node       xdsNode         `json:"node"`
	Endpoints  []xdsEndpoint   `json:"endpoints"`
	Refusal    string          `json:"refusal,omitempty"` // why every call fails
	LeftOut    []leftOut       `json:"leftOut"`
	Unmapped   []string        `json:"unmapped"` // of the service config
	Listener   json.RawMessage `json:"listener"`
	Cluster    json.RawMessage `json:"cluster"`
	Assignment json.RawMessage `json:"assignment"`
}

type xdsNode struct {
	ID       string   `json:"id"`
	Addr     string   `json:"addr,omitempty"`
	Locality locality `json:"locality"`
}

// xdsEndpoint is an endpoint as the client is sent it.
type xdsEndpoint struct {
	Priority uint32   `json:"priority"` // 0 is used first
	Locality locality `json:"locality"`
	Addr     string   `json:"addr"`
	More     []string `json:"moreAddrs,omitempty"` // of the same host
	Share    float64  `json:"sharePercent"`        // of the calls that its priority gets
	Status   string   `json:"status"`              // "healthy" or "draining"
}

func newXDSExplain(a *app) *cobra.Command {
	var node xds.Node
	var subset int
	cmd := &cobra.Command{
		Use:   "explain SERVICE",
		Short: "Show what an xDS client is sent of a service",
		Long: "explain shows what rollcall serve sends a client of xds:///SERVICE that runs in a given\n" +
			"zone: endpoints by priority and locality, with the share of calls that each gets from a\n" +
			"client that balances by round_robin; then what is left out of endpoints and service\n" +
			"config, and why. It asks etcd, not a rollcall serve. SERVICE may have a selector. JSON\n" +
			"has the xDS resources as well. If the service has no keys, the exit code is 3.\n\n" +
			"Of a service with more endpoints than --xds-subset a client is sent a part, which depends\n" +
			"on its node id and its address: give both, as rollcall xds clients lists them.",
		Example: "  rollcall xds explain my-service --node-zone eu-1\n  rollcall xds explain 'my-service;version=v2' -o json\n" +
			"  rollcall xds explain my-service --node-id web-1 --node-addr 10.0.0.7",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.xdsExplain(cmd.Context(), strings.TrimPrefix(args[0], "xds:///"), node, subset)
		},
	}
	flags := cmd.Flags()
	addLocality(flags, &node.Locality, "node-")
	flags.StringVar(&node.ID, "node-id", "", "the client's node id")
	flags.StringVar(&node.Addr, "node-addr", "", "the IP address that the client connects from; @ for a unix socket")
	addSubset(flags, &subset)
	return cmd
}

func (a *app) xdsExplain(ctx context.Context, name string, node xds.Node, subset int) error {
	service, selector, err := xds.ParseName(name)
	if err != nil {
		return err
	}
	if err := atLeastOne("--xds-subset", subset); err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(node.Addr); err == nil {
		node.Addr = ip.Unmap().String()
	} else if node.Addr != "" && node.Addr != "@" {
		return fail(exitUsage, "--node-addr %q: want an IP address without a port, or @", node.Addr)
	}
	node.Locality = a.locality(node.Locality)
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := list(ctx, dir, service)
		if err != nil {
			return err
		}
		config, err := dir.ServiceConfig(ctx, service)
		if err != nil {
			a.say("without the service config: %s", plain(err))
		}
		sent, err := xds.Explain(ctx, snap, config, name, node, xds.Options{Subset: subset})
		if err != nil {
			return err
		}
		e := xdsExplanation{APIVersion: apiVersion, Kind: "XDSExplanation", Name: name, Revision: snap.Revision(), Node: xdsNode{node.ID, node.Addr, locality(node.Locality)},
			Unmapped: append([]string{}, sent.Unmapped...)}
		e.assign(sent.Assignment)
		e.leaveOut(snap, selector, sent.Left)
		if a.json() {
			return a.printExplanation(e, sent)
		}
		_, err = fmt.Fprint(a.stdout, e.table())
		return err
	})
}

// assign takes in an assignment.
func (e *xdsExplanation) assign(assignment *endpointv3.ClusterLoadAssignment) {
	for _, drop := range assignment.GetPolicy().GetDropOverloads() {
		e.Refusal = drop.GetCategory()
	}
	sums := make(map[uint32]float64) // weights of the localities that get calls, by priority
	for _, l := range assignment.Endpoints {
		if healthyCount(l) > 0 {
			sums[l.Priority] += float64(l.LoadBalancingWeight.GetValue())
		}
	}
	e.Endpoints = []xdsEndpoint{}
	for _, l := range assignment.Endpoints {
		where := locality{Region: l.Locality.GetRegion(), Zone: l.Locality.GetZone(), Subzone: l.Locality.GetSubZone()}
		share := float64(l.LoadBalancingWeight.GetValue()) / sums[l.Priority] / healthyCount(l)
		for _, lb := range l.LbEndpoints {
			ep := xdsEndpoint{Priority: l.Priority, Locality: where, Addr: addrText(lb.GetEndpoint().GetAddress()), Status: "draining"}
			for _, more := range lb.GetEndpoint().GetAdditionalAddresses() {
				ep.More = append(ep.More, addrText(more.GetAddress()))
			}
			if healthy(lb) {
				ep.Share, ep.Status = math.Round(share*10_000)/100, "healthy"
			}
			e.Endpoints = append(e.Endpoints, ep)
		}
	}
	slices.SortStableFunc(e.Endpoints, func(a, b xdsEndpoint) int { return int(a.Priority) - int(b.Priority) })
}

func healthy(lb *endpointv3.LbEndpoint) bool { return lb.HealthStatus != corev3.HealthStatus_DRAINING }

// healthyCount returns how many endpoints of a locality get calls.
func healthyCount(l *endpointv3.LocalityLbEndpoints) (n float64) {
	for _, lb := range l.LbEndpoints {
		if healthy(lb) {
			n++
		}
	}
	return n
}

func addrText(addr *corev3.Address) string {
	s := addr.GetSocketAddress()
	return net.JoinHostPort(s.GetAddress(), strconv.FormatUint(uint64(s.GetPortValue()), 10))
}

// leaveOut finds the keys that the client is sent nothing of, and why.
func (e *xdsExplanation) leaveOut(snap *rollcall.Snapshot, selector rollcall.Selector, barred []rollcall.Disallowed) {
	sent := make(map[string]bool)
	for _, ep := range e.Endpoints {
		sent[ep.Addr] = true
	}
	causes := make(map[string]string)
	for _, d := range barred {
		causes[d.Instance.Key] = barredText(d.Cause)
	}
	e.LeftOut = []leftOut{}
	for _, i := range snap.Invalid() {
		e.LeftOut = append(e.LeftOut, leftOut{i.Key, inventory.Base64(i.Key), "", "invalid: " + i.Cause.Error()})
	}
	for inst := range snap.All() {
		cause := causes[inst.Key]
		switch {
		case cause != "":
		case !selector.Matches(inst):
			cause = "not selected by the name"
		case elsewhere(inst.Addr, sent):
			cause = "another part of the service is for this client"
		default:
			continue
		}
		e.LeftOut = append(e.LeftOut, leftOut{inst.Key, inventory.Base64(inst.Key), inst.Addr, cause})
	}
	slices.SortFunc(e.LeftOut, func(a, b leftOut) int { return strings.Compare(a.Key, b.Key) })
}

// barredText tells an address that is not allowed from a host name that cannot be looked up.
func barredText(cause error) string {
	var input *rollcall.InputError
	if errors.As(cause, &input) {
		return "disallowed: " + input.Reason
	}
	return cause.Error()
}

// elsewhere reports whether an address is not among those sent. Of a host name that is not
// known here.
func elsewhere(addr string, sent map[string]bool) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && !sent[netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()]
}

func (e *xdsExplanation) table() string {
	var parts []string
	if len(e.Endpoints) > 0 {
		rows := [][]string{{"PRIORITY", "REGION", "ZONE", "SUBZONE", "ADDRESS", "SHARE", "STATUS"}}
		for _, ep := range e.Endpoints {
			addr := strings.Join(append([]string{ep.Addr}, ep.More...), " or ")
			rows = append(rows, []string{strconv.FormatUint(uint64(ep.Priority), 10), ep.Locality.Region, ep.Locality.Zone, ep.Locality.Subzone,
				addr, fmt.Sprintf("%.2f%%", ep.Share), ep.Status})
		}
		parts = append(parts, table(rows...))
	} else {
		why := cmp.Or(e.Refusal, "there are no endpoints for this name")
		parts = append(parts, table([]string{"ALL CALLS FAIL"}, []string{why}))
	}
	if len(e.LeftOut) > 0 {
		rows := [][]string{{"LEFT OUT", "ADDRESS", "CAUSE"}}
		for _, l := range e.LeftOut {
			rows = append(rows, []string{l.Key, l.Addr, l.Cause})
		}
		parts = append(parts, table(rows...))
	}
	if len(e.Unmapped) > 0 {
		rows := [][]string{{"LEFT OUT OF THE SERVICE CONFIG"}}
		for _, part := range e.Unmapped {
			rows = append(rows, []string{part})
		}
		parts = append(parts, table(rows...))
	}
	return strings.Join(parts, "\n")
}

// printExplanation prints the document, with the resources as xDS writes them in JSON.
func (a *app) printExplanation(e xdsExplanation, sent *xds.Explanation) error {
	for _, r := range []struct {
		to *json.RawMessage
		m  proto.Message
	}{{&e.Listener, sent.Listener}, {&e.Cluster, sent.Cluster}, {&e.Assignment, sent.Assignment}} {
		text, err := protojson.Marshal(r.m)
		if err != nil {
			return err
		}
		*r.to = text
	}
	return a.printJSON(e)
}
