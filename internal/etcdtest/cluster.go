// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// readyTimeout bounds the wait until members answer: elections take seconds, and the
// machine may be busy with other tests.
const readyTimeout = 60 * time.Second

// token is the cluster token of all clusters: the peer addresses tell them apart.
const token = "etcdtest"

// Options describes a cluster. The zero value is one member.
type Options struct {
	// Members is how many there are. Default 1.
	Members int
	// Flags are added to the command line of every member, last, so that they win.
	Flags []string
	// Etcd is the path of the etcd to run. Default: the one that tools/go.mod pins.
	Etcd string
	// Host returns the address of member i, where 127.0.0.1 will not do (each member in
	// a network namespace of its own, say). Default: 127.0.0.1 for all.
	Host func(i int) string
	// Wrap returns the command line to run for member i, given etcd's own, to run it in
	// another place ("ip netns exec ..."). It must end up in the same process. Default:
	// as given.
	Wrap func(i int, argv []string) []string
}

// Cluster is a set of members that know each other.
type Cluster struct {
	tb      testing.TB
	members []*Member
}

// New starts a cluster and waits until it answers. When the test ends it is gone; when
// the test has failed, the end of each member's log is printed.
func New(tb testing.TB, opts Options) *Cluster {
	tb.Helper()
	opts = opts.withDefaults(tb)
	c := &Cluster{tb: tb}
	dir := tb.TempDir()
	for i := range opts.Members {
		name, host := "m"+strconv.Itoa(i), opts.Host(i)
		c.members = append(c.members, &Member{
			tb:   tb,
			name: name,
			host: net.JoinHostPort(host, strconv.Itoa(reservePort(tb))),
			peer: "http://" + net.JoinHostPort(host, strconv.Itoa(reservePort(tb))),
			data: filepath.Join(dir, name),
			log:  filepath.Join(dir, name+".log"),
		})
	}
	for i, m := range c.members {
		m.all = c.initialCluster()
		m.argv = opts.Wrap(i, append(m.commandLine(opts.Etcd), opts.Flags...))
	}
	tb.Cleanup(c.end)
	for _, m := range c.members {
		m.Start()
	}
	c.WaitReady()
	return c
}

func (o Options) withDefaults(tb testing.TB) Options {
	tb.Helper()
	if o.Members == 0 {
		o.Members = 1
	}
	if o.Etcd == "" {
		o.Etcd = Binary(tb, "etcd")
	}
	if o.Host == nil {
		o.Host = func(int) string { return "127.0.0.1" }
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

// commandLine has elections end within about two seconds, and nothing synced to disk: a
// killed process loses nothing by that, only a killed machine does.
func (m *Member) commandLine(etcd string) []string {
	return []string{etcd,
		"--name=" + m.name,
		"--data-dir=" + m.data,
		"--listen-client-urls=" + m.URL(), "--advertise-client-urls=" + m.URL(),
		"--listen-peer-urls=" + m.peer, "--initial-advertise-peer-urls=" + m.peer,
		"--initial-cluster=" + m.all, "--initial-cluster-token=" + token,
		"--heartbeat-interval=100", "--election-timeout=1000",
		"--unsafe-no-fsync", "--logger=zap", "--log-outputs=stderr",
	}
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

// Leader returns the member that leads, and fails the test when there is none.
func (c *Cluster) Leader() *Member {
	c.tb.Helper()
	for _, m := range c.members {
		if !m.answers() {
			continue
		}
		resp, err := m.status()
		if err == nil && resp.Leader == resp.Header.MemberId {
			return m
		}
	}
	c.tb.Fatalf("etcdtest: no member leads")
	return nil
}

// WaitReady waits until every member that runs, and is not paused, answers a linearizable
// read, which takes a majority. It fails the test after a minute, and at once when a member has ended
// by itself.
func (c *Cluster) WaitReady() {
	c.tb.Helper()
	deadline := time.Now().Add(readyTimeout)
	for _, m := range c.members {
		for m.answers() {
			err := m.read()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				c.tb.Fatalf("etcdtest: %s does not answer: %v", m.name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if m.proc != nil && m.proc.failed() {
			c.tb.Fatalf("etcdtest: %s ended by itself", m.name)
		}
	}
}

// read makes one linearizable read. An answer about users is one too.
func (m *Member) read() error {
	client, err := newClient(m.host)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = client.Get(ctx, "ready")
	if errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrPermissionDenied) {
		return nil
	}
	return err
}

func (m *Member) status() (*clientv3.StatusResponse, error) {
	client, err := newClient(m.host)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return client.Status(ctx, m.host)
}

// end stops everything, at once: what members still have to say is of no interest.
func (c *Cluster) end() {
	for _, m := range c.members {
		if m.proc != nil {
			m.proc.kill()
		}
	}
	if !c.tb.Failed() {
		return
	}
	for _, m := range c.members {
		c.tb.Logf("etcdtest: %s: %s", m.name, m.logTail())
	}
}
