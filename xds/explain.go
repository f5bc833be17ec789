// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/rollcall-grpc/rollcall"
)

// Explanation is what a client is sent of a service, and what it is not.
type Explanation struct {
	Listener   *listenerv3.Listener
	Cluster    *clusterv3.Cluster
	Assignment *endpointv3.ClusterLoadAssignment

	Left     []rollcall.Disallowed // endpoints that are left out, and why, sorted by key
	Unmapped []string              // parts of the service config without a counterpart in xDS
}

// Node is a client.
type Node struct {
	ID       string
	Addr     string // the host that it connects from, "" if that is unknown
	Locality rollcall.Locality
}

// Explain returns what a client is sent for a name, such as "my-service" or
// "my-service;zone=eu-1". The config may be nil. Host names are looked up once.
func Explain(ctx context.Context, snap *rollcall.Snapshot, config *rollcall.ServiceConfig, name string, node Node, opts Options) (*Explanation, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	n, err := parseName(listeners, name)
	if err != nil {
		return nil, err
	}
	c := mapServiceConfig(config)
	look := func(host string) ([]netip.Addr, error) { return lookUp(ctx, opts.LookupHost, host) }
	endpoints, left := endpointsOf(snap, describe(snap, nil), n.selector, opts.Policy, look)
	to := audience{node.Locality, subsetFor(node.ID, node.Addr)}
	return &Explanation{
		Listener:   clientListener(n, c),
		Cluster:    cluster(n, c),
		Assignment: assignmentOf(n.as(assignments), snap.Service(), endpoints, left, to, c, opts.Subset),
		Left:       left,
		Unmapped:   c.unmapped,
	}, nil
}
