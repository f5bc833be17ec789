// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import "testing"

// NewPartitionable starts a cluster, of three members by default, whose members live in
// network namespaces of their own, so that Isolate can separate one from the others while
// clients still reach it. It needs Linux, root and the command ip; without them the test is skipped,
// with the reason. The caller must not set Host and Wrap.
func NewPartitionable(tb testing.TB, opts Options) *Cluster {
	tb.Helper()
	if opts.Members == 0 {
		opts.Members = 3
	}
	if opts.Host != nil || opts.Wrap != nil {
		tb.Fatalf("etcdtest: a partitionable cluster sets Host and Wrap itself")
	}
	n := newNetwork(tb, opts.Members)
	opts.Host, opts.peerHost, opts.Wrap = n.clientHost, n.peerHost, n.wrap
	return start(tb, opts, n)
}

// Isolate separates member i from the other members, without notifying either: packets are lost in
// both directions. Its clients still reach it.
func (c *Cluster) Isolate(i int) {
	c.tb.Helper()
	c.link(i, true)
}

// Rejoin undoes Isolate. Members find each other again within a few seconds: see
// WaitReady.
func (c *Cluster) Rejoin(i int) {
	c.tb.Helper()
	c.link(i, false)
}

func (c *Cluster) link(i int, cut bool) {
	c.tb.Helper()
	if c.net == nil {
		c.tb.Fatalf("etcdtest: the cluster is not partitionable: see NewPartitionable")
	}
	if err := c.net.cut(i, cut); err != nil {
		c.tb.Fatalf("etcdtest: peer link of %s: %v", c.members[i].name, err)
	}
	c.members[i].isolated = cut
}
