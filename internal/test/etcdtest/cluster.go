// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// readyTimeout bounds the wait until members answer: elections take seconds, and the machine may
// be busy with other tests.
const readyTimeout = 60 * time.Second

// token is the cluster token of all clusters: the peer addresses tell them apart.
const token = "etcdtest"

// Options describes a cluster. The zero value is one member.
type Options struct {
	// Members is the number of members. Default 1, and 3 in NewPartitionable.
	Members int
	// Flags are added to the command line of every member, last, so that they win.
	Flags []string
	// TLS signs the certificates of members and clients: members listen on https and require
	// client certificates. Peers still use http. Default: no TLS.
	TLS *CA
	// Etcd is the path of the etcd to run. Default: that of Version.
	Etcd string
	// Host returns the address of member i. Default: 127.0.0.1 for all.
	Host func(i int) string
	// Wrap returns the command line to run for member i, given that of etcd, for instance to add
	// "ip netns exec ...". etcd must run in the same process. Default: as given.
	Wrap func(i int, argv []string) []string

	peerHost func(i int) string // the address for the other members; default: as Host
}

// Cluster is an etcd cluster.
type Cluster struct {
	tb      testing.TB
	members []*Member
	ca      *CA          // nil without TLS
	cert    *Certificate // presented by clients
	net     *network     // nil unless partitionable
	root    *Auth        // nil until EnableAuth
}

// New starts a cluster and waits until it answers. When the test ends, the cluster is removed; if
// the test has failed, the end of each member's log is printed.
func New(tb testing.TB, opts Options) *Cluster {
	tb.Helper()
	return start(tb, opts, nil)
}

func start(tb testing.TB, opts Options, net *network) *Cluster {
	tb.Helper()
	opts = opts.withDefaults(tb)
	c := &Cluster{tb: tb, ca: opts.TLS, net: net}
	if c.ca != nil {
		c.cert = c.ca.Issue("client", aDay)
	}
	dir := tb.TempDir()
	for i := range opts.Members {
		c.members = append(c.members, c.newMember(i, opts, dir))
	}
	for i, m := range c.members {
		m.argv = opts.Wrap(i, append(m.commandLine(opts.Etcd), opts.Flags...))
	}
	tb.Cleanup(c.end)
	for _, m := range c.members {
		m.Start()
	}
	c.WaitReady()
	return c
}

func (c *Cluster) newMember(i int, opts Options, dir string) *Member {
	c.tb.Helper()
	name, host := "m"+strconv.Itoa(i), opts.Host(i)
	m := &Member{
		cluster: c,
		index:   i,
		peer:    "http://" + net.JoinHostPort(opts.peerHost(i), strconv.Itoa(reservePort(c.tb))),
		data:    filepath.Join(dir, name),
	}
	m.Server = Server{
		tb:   c.tb,
		name: name,
		host: net.JoinHostPort(host, strconv.Itoa(reservePort(c.tb))),
		log:  filepath.Join(dir, name+".log"),
	}
	if c.ca != nil {
		m.cert = c.ca.Issue(name, aDay, host)
	}
	return m
}

func (o Options) withDefaults(tb testing.TB) Options {
	tb.Helper()
	if o.Members == 0 {
		o.Members = 1
	}
	if o.Etcd == "" {
		o.Etcd = Etcd(tb, Version())
	}
	if o.Host == nil {
		o.Host = func(int) string { return "127.0.0.1" }
	}
	if o.peerHost == nil {
		o.peerHost = o.Host
	}
	if o.Wrap == nil {
		o.Wrap = func(_ int, argv []string) []string { return argv }
	}
	return o
}

func (c *Cluster) initialCluster() string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.name+"="+m.peer)
	}
	return strings.Join(all, ",")
}

func (c *Cluster) scheme() string {
	if c.ca != nil {
		return "https"
	}
	return "http"
}

// Endpoints returns the host:port of every member, running or not.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.host)
	}
	return all
}

// Member returns member i, from 0.
func (c *Cluster) Member(i int) *Member { return c.members[i] }

// Members returns all members.
func (c *Cluster) Members() []*Member { return slices.Clone(c.members) }

// Leader returns the leader, and fails the test if there is none.
func (c *Cluster) Leader() *Member {
	c.tb.Helper()
	for _, m := range c.members {
		if m.answers() && m.leads() {
			return m
		}
	}
	c.tb.Fatalf("etcdtest: no member leads")
	return nil
}

// WaitReady waits until every running member that is not paused or isolated answers a linearizable
// read, which needs a majority. It fails the test after a minute, and at once if a member has ended
// by itself.
func (c *Cluster) WaitReady() {
	c.tb.Helper()
	deadline := time.Now().Add(readyTimeout)
	for _, m := range c.members {
		for m.answers() {
			err := m.ask(linearizable)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				c.tb.Fatalf("etcdtest: %s does not answer: %v", m.name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if m.failed() {
			c.tb.Fatalf("etcdtest: %s ended by itself", m.name)
		}
	}
}

// end stops all members before it prints their logs.
func (c *Cluster) end() {
	for _, m := range c.members {
		m.end()
	}
	for _, m := range c.members {
		m.tellLog()
	}
}
