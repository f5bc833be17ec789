// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(holdEnv) != "" {
		hold()
	}
	goleak.VerifyTestMain(m)
}

func put(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := client.Put(ctx, key, value)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return resp.Header.Revision
}

func wantValue(t *testing.T, client *clientv3.Client, key, want string) *clientv3.GetResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	got := ""
	if len(resp.Kvs) > 0 {
		got = string(resp.Kvs[0].Value)
	}
	if got != want {
		t.Errorf("get %s: got %q, want %q", key, got, want)
	}
	return resp
}

func TestOneMember(t *testing.T) {
	c := New(t, Options{Flags: []string{"--max-txn-ops=7"}})
	client, m := c.Client(t), c.Member(0)

	c.Etcdctl(t, "put", "k", "by etcdctl")
	wantValue(t, client, "k", "by etcdctl")

	m.Kill()
	if m.Running() {
		t.Error("Running() after Kill")
	}
	m.Start()
	c.WaitReady()
	wantValue(t, client, "k", "by etcdctl")

	m.Stop()
	m.Start()
	c.WaitReady()
	wantValue(t, client, "k", "by etcdctl")
	if got := c.Leader(); got != m {
		t.Errorf("Leader() = %s, want %s", got.Name(), m.Name())
	}

	m.Stop()
	m.Wipe()
	m.Start()
	c.WaitReady()
	if resp := wantValue(t, client, "k", ""); resp.Header.Revision != 1 {
		t.Errorf("revision after Wipe: %d, want 1", resp.Header.Revision)
	}
}

func TestFlagsWin(t *testing.T) {
	c := New(t, Options{Flags: []string{"--max-txn-ops=1"}})
	ops := []clientv3.Op{clientv3.OpPut("a", ""), clientv3.OpPut("b", "")}
	if _, err := c.Client(t).Txn(t.Context()).Then(ops...).Commit(); err == nil {
		t.Error("a transaction of 2 operations passed with --max-txn-ops=1")
	}
}

func TestPause(t *testing.T) {
	c := New(t, Options{})
	client := c.Client(t)
	c.Member(0).Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := client.Get(ctx, "k"); err == nil {
		t.Error("a paused member answered")
	}
	c.Member(0).Resume()
	wantValue(t, client, "k", "")
	c.Member(0).Pause()
	c.Member(0).Stop() // must not wait for the one who would resume it
}

func TestThreeMembers(t *testing.T) {
	c := New(t, Options{Members: 3})
	client := c.Client(t)
	put(t, client, "k", "v0")
	if n := len(c.Endpoints()); n != 3 {
		t.Errorf("%d endpoints, want 3", n)
	}

	leader := c.Leader()
	leader.Kill()
	c.WaitReady() // the two others elect one of them
	if got := c.Leader(); got == leader {
		t.Errorf("Leader() = %s, which is dead", got.Name())
	}
	put(t, client, "k", "v1")
	leader.Start()
	c.WaitReady()
	only := c.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{leader.URL()} })
	wantValue(t, only, "k", "v1")
}

func TestRestore(t *testing.T) {
	c := New(t, Options{})
	client, m := c.Client(t), c.Member(0)
	put(t, client, "k", "saved")
	file := filepath.Join(t.TempDir(), "snapshot")
	m.Save(file)
	before := put(t, client, "k", "lost")

	m.Stop()
	m.Restore(file, "--bump-revision=1000", "--mark-compacted")
	m.Start()
	c.WaitReady()
	if resp := wantValue(t, client, "k", "saved"); resp.Header.Revision < before+900 {
		t.Errorf("revision %d after a bump by 1000, was %d", resp.Header.Revision, before)
	}
}

func TestWrap(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "wrapped")
	New(t, Options{Wrap: func(_ int, argv []string) []string {
		return append([]string{"sh", "-c", `touch "$0" && exec "$@"`, marker}, argv...)
	}})
	if _, err := os.Stat(marker); err != nil {
		t.Error(err)
	}
}

func TestFailedMemberIsTold(t *testing.T) {
	r := &record{TB: t}
	r.run(func() { New(r, Options{Flags: []string{"--no-such-flag"}}) })
	if !strings.Contains(r.fatal, "m0 ended by itself") {
		t.Errorf("failure %q, want one that names the member", r.fatal)
	}
	if !strings.Contains(r.logged.String(), "no-such-flag") {
		t.Errorf("log %q, want the end of the member's log", r.logged.String())
	}
}
