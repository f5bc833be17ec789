// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// only returns a client of one member.
func only(t *testing.T, c *Cluster, m *Member) *clientv3.Client {
	t.Helper()
	return c.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{m.Addr()} })
}

// serializable reads what a member has, a majority or not.
func serializable(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, key, clientv3.WithSerializable())
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("serializable get %s: %v, %v", key, resp, err)
	}
	return string(resp.Kvs[0].Value)
}

func TestIsolate(t *testing.T) {
	c := NewPartitionable(t, Options{})
	for _, who := range []string{"leader", "follower"} {
		m := c.Leader()
		if who == "follower" {
			m = c.Member((m.Index() + 1) % len(c.Members()))
		}
		alone := only(t, c, m)
		others := c.Client(t, func(cfg *clientv3.Config) {
			cfg.Endpoints = []string{c.Member((m.Index() + 1) % 3).Addr(), c.Member((m.Index() + 2) % 3).Addr()}
		})
		put(t, others, "k", "before")
		wantValue(t, alone, "k", "before")

		c.Isolate(m.Index())
		c.WaitReady() // the two others
		put(t, others, "k", "after")
		if got := serializable(t, alone, "k"); got != "before" {
			t.Errorf("%s: an isolated member has %q, want %q", who, got, "before")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := alone.Get(ctx, "k"); err == nil {
			t.Errorf("%s: an isolated member answered a linearizable read", who)
		}
		cancel()
		if got := c.Leader(); got == m {
			t.Errorf("%s: Leader() = %s, which is isolated", who, got.Name())
		}

		c.Rejoin(m.Index())
		c.WaitReady()
		wantValue(t, alone, "k", "after")
	}
}

func TestMembersRestartInTheirNetwork(t *testing.T) {
	c := NewPartitionable(t, Options{})
	client := c.Client(t)
	put(t, client, "k", "v")
	for _, m := range c.Members() {
		m.Kill()
		m.Start()
		c.WaitReady()
	}
	wantValue(t, client, "k", "v")
}

func TestIsolateTakesNamespaces(t *testing.T) {
	r := &record{TB: t}
	r.run(func() { New(r, Options{}).Isolate(0) })
	if !strings.Contains(r.fatal, "NewPartitionable") {
		t.Errorf("failure %q, want one that names NewPartitionable", r.fatal)
	}
}

// leftovers lists what there is of a network.
func leftovers(t *testing.T, n *network) []string {
	t.Helper()
	out, err := exec.Command("ip", "-br", "link").CombinedOutput()
	if err != nil {
		t.Fatalf("ip link: %v, %s", err, out)
	}
	left := n.namespaces()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, fmt.Sprintf("rollcall%dm", n.slot)) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	return left
}

func TestNetworkIsRemoved(t *testing.T) {
	newNetwork(t, 1) // or skip
	r := &record{TB: t}
	var n *network
	r.run(func() { n = newNetwork(r, 3) })
	if n == nil {
		t.Fatal(r.fatal)
	}
	if left := leftovers(t, n); len(left) > 0 {
		t.Errorf("after the test: %q", left)
	}
}

// What a process leaves that dies before its Cleanup is removed by the next.
func TestNetworkOfTheDeadIsRemoved(t *testing.T) {
	newNetwork(t, 1) // or skip
	dead, unlock, err := reserveNetwork()
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.build(2); err != nil {
		t.Error(err)
	}
	other, unlockOther, err := reserveNetwork()
	if err != nil {
		t.Fatal(err)
	}
	unlockOther()
	if left := leftovers(t, dead); other.slot == dead.slot || len(left) != 5 {
		t.Errorf("of one that lives there is %q, want three namespaces and two links", left)
	}
	unlock() // as its death does

	newNetwork(t, 1)
	unlock, err = lockFile(filepath.Join(netLocks, strconv.Itoa(dead.slot)), false)
	if err != nil {
		return // another test has taken the slot, after removing what was there
	}
	defer unlock()
	if left := leftovers(t, dead); len(left) > 0 {
		t.Errorf("of a dead one there is %q", left)
	}
}
