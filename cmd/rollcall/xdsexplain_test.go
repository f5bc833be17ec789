// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// TestExplainSubset: what is explained to be a client's part of a service is what the client is
// sent.
func TestExplainSubset(t *testing.T) {
	endpoint := sharedEtcd(t)
	for i := range 20 {
		must(t, endpoint, "add", "t-explain-subset", fmt.Sprintf("10.0.0.%d:80", i+1), "--metadata", `{"zone":"eu-1"}`)
	}
	socket := filepath.Join(t.TempDir(), "s")
	s := beginServe(t, endpoint, "--xds", "127.0.0.1:0", "--xds", "unix:"+socket, "--xds-subset", "3")
	awaitReady(t, s.admin)
	const name = "t-explain-subset;zone=eu-1"
	for i, from := range []string{"127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", "@"} {
		id, server := fmt.Sprint("client ", i), s.xds[0]
		if from == "@" {
			server = s.xds[1]
		}
		r := must(t, endpoint, "xds", "explain", "xds:///"+name, "--node-id", id, "--node-addr", from, "--xds-subset", "3", "-o", "json")
		var e xdsExplanation
		if err := json.Unmarshal([]byte(r.stdout), &e); err != nil {
			t.Fatal(err)
		}
		var explained []string
		for _, ep := range e.Endpoints {
			explained = append(explained, ep.Addr)
		}
		slices.Sort(explained)
		if sent := sentTo(t, server, id, name); len(sent) != 3 || !slices.Equal(sent, explained) {
			t.Errorf("%q from %s is sent %q, explained as %q", id, from, sent, explained)
		}
	}
}

// sentTo returns the addresses of a service that a client is sent, sorted.
func sentTo(t *testing.T, server, id, name string) (addrs []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(plainConn(t, server)).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: id}, ResourceNames: []string{name},
		TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var assignment endpointv3.ClusterLoadAssignment
	if err := resp.Resources[0].UnmarshalTo(&assignment); err != nil {
		t.Fatal(err)
	}
	for _, l := range assignment.Endpoints {
		for _, lb := range l.LbEndpoints {
			addrs = append(addrs, addrText(lb.GetEndpoint().GetAddress()))
		}
	}
	slices.Sort(addrs)
	return addrs
}

func TestExplainBadInput(t *testing.T) {
	for want, args := range map[string][]string{
		"two selectors; use one":            {"shop;zone=eu-1?version=v2"},
		"--node-addr \"10.0.0.7:80\": want": {"shop", "--node-addr", "10.0.0.7:80"},
		"--xds-subset 0: must be":           {"shop", "--xds-subset", "0"},
	} {
		r := rollcallAt(t, "127.0.0.1:1", append([]string{"xds", "explain"}, args...)...)
		if r.code != exitUsage || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%q: exit %d with %q, want %d with one line", args, r.code, r.stderr, exitUsage)
		}
		wantIn(t, "stderr", r.stderr, want)
	}
}
