// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func TestAdd(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	r := must(t, endpoint, "add", "t-add/", "10.0.0.1:80", "--metadata", `{"weight": 10, "note": "<b>"}`)
	// Byte for byte what etcd's own package writes.
	want := `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"weight":10,"note":"\u003cb\u003e"}}`
	if got := valueOf(t, client, "t-add/10.0.0.1:80"); got != want {
		t.Errorf("value = %s, want %s", got, want)
	}
	wantIn(t, "stdout", r.stdout, "t-add/10.0.0.1:80")
	if r.stderr != "" {
		t.Errorf("stderr = %q", r.stderr)
	}

	r = rollcallAt(t, endpoint, "add", "t-add", "10.0.0.2:80", "--id", "10.0.0.1:80")
	if r.code != exitOther || valueOf(t, client, "t-add/10.0.0.1:80") != want {
		t.Errorf("exit %d, want %d and the key as it was", r.code, exitOther)
	}
	wantIn(t, "stderr", r.stderr, "exists already", "10.0.0.1:80", "--force")

	r = rollcallAt(t, endpoint, "add", "t-add", "10.0.0.2:80", "--id", "10.0.0.1:80", "--ttl", "60s")
	if left := leaseCount(t, client); r.code != exitOther || left != 0 {
		t.Errorf("exit %d, %d leases, want %d and no lease left", r.code, left, exitOther)
	}

	must(t, endpoint, "add", "t-add", "10.0.0.2:80", "--id", "10.0.0.1:80", "--force")
	wantIn(t, "value", valueOf(t, client, "t-add/10.0.0.1:80"), "10.0.0.2:80")

	r = must(t, endpoint, "add", "t-add", "10.0.0.3:80", "--metadata", `{"weight":"heavy"}`)
	wantIn(t, "stderr", r.stderr, `"weight"`, "its default applies")
}

func TestAddUnderLease(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	r := must(t, endpoint, "add", "t-lease", "10.0.0.1:80", "--ttl", "2001ms", "-o", "json")
	var got written
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.TTL != 3 || got.Lease == "" || got.Kind != "Instance" {
		t.Errorf("got %+v, want a lease of 3s", got)
	}
	wantIn(t, "stderr", r.stderr, "lease "+got.Lease+" is not renewed", "3s")
	r = must(t, endpoint, "get", "t-lease", "-o", "wide")
	wantIn(t, "stdout", r.stdout, got.Lease, "/3s ")

	r = must(t, endpoint, "add", "t-lease", "10.0.0.1:80", "--force")
	wantIn(t, "stderr", r.stderr, "was under lease "+got.Lease, "the server takes the new value under its lease", "otherwise the key stays")
	eventually(t, "the lease has ended", func() bool { return leaseCount(t, client) == 0 })
	if valueOf(t, client, "t-lease/10.0.0.1:80") == "" {
		t.Error("a key without a lease went with the lease it once had")
	}
}

func TestRm(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	put1(t, client, "t-rm/a", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "t-rm/b", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "t-rm/c", `{"Addr":"10.0.0.2:80"}`)
	put1(t, client, "t-rm/10.0.0.2:80", `garbage`)
	grant, err := client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Revoke(t.Context(), grant.ID)
	put1(t, client, "t-rm/leased", `{"Addr":"10.0.0.3:80"}`, clientv3.WithLease(grant.ID))

	r := must(t, endpoint, "rm", "t-rm", "10.0.0.1:80")
	wantIn(t, "stdout", r.stdout, "t-rm/a\n", "t-rm/b\n")
	must(t, endpoint, "rm", "t-rm", "10.0.0.2:80") // an id goes before an address
	if valueOf(t, client, "t-rm/c") == "" || valueOf(t, client, "t-rm/10.0.0.2:80") != "" {
		t.Error("rm took an address where an id was named")
	}
	r = must(t, endpoint, "rm", "t-rm", "leased")
	wantIn(t, "stderr", r.stderr, "comes back if its server is still running")
	if r := rollcallAt(t, endpoint, "rm", "t-rm", "leased"); r.code != exitNotFound {
		t.Errorf("second rm: exit %d, want %d", r.code, exitNotFound)
	}
	r = must(t, endpoint, "ls", "t-rm")
	wantIn(t, "stdout", r.stdout, "t-rm     1          1        -         -        -")
	r = must(t, endpoint, "ls", "t-nothing")
	wantIn(t, "stderr", r.stderr, `no services start with "t-nothing" at revision `)

	put1(t, client, "t-rm/bad", `garbage`)
	if r := rollcallAt(t, endpoint, "rm", "t-rm", "--all"); r.code != exitOther || valueOf(t, client, "t-rm/bad") == "" {
		t.Errorf("rm --all without --yes: exit %d, want %d", r.code, exitOther)
	}
	r = must(t, endpoint, "rm", "t-rm", "--all", "--yes")
	wantIn(t, "stdout", r.stdout, "t-rm/bad\n", "t-rm/c\n")
	r = rollcallAt(t, endpoint, "rm", "t-rm", "--all", "--yes")
	if r.code != exitNotFound {
		t.Errorf("second rm --all: exit %d, want %d", r.code, exitNotFound)
	}
	wantIn(t, "stderr", r.stderr, `service "t-rm" not found`, "rollcall history t-rm if it has gone")
}

func TestLsOfAnEmptyEtcd(t *testing.T) {
	r := must(t, freshEtcd(t).Endpoint(), "ls")
	wantIn(t, "stderr", r.stderr, "no services at revision 1")
}

// What is too much for one transaction takes several.
func TestDrainAndRmOfMany(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const n = edit.MaxKeys + 1
	for i := range n {
		put1(t, client, fmt.Sprintf("t-many/%03d", i), `{"Addr":"10.0.0.1:80"}`)
	}
	r := rollcallAt(t, endpoint, "rm", "t-many", "10.0.0.1:80")
	if r.code != exitOther {
		t.Errorf("exit %d, want %d", r.code, exitOther)
	}
	wantIn(t, "stderr", r.stderr, "all endpoints (128)", "--yes")
	r = must(t, endpoint, "drain", "t-many", "10.0.0.1:80", "--force", "-o", "json")
	wantIn(t, "stderr", r.stderr, "it took 2 transactions")
	var done edited
	if err := json.Unmarshal([]byte(r.stdout), &done); err != nil {
		t.Fatal(err)
	}
	drains := func(i inventory.Instance) bool { return i.Status == rollcall.StatusDraining }
	if len(done.Instances) != n || slices.ContainsFunc(done.Instances, func(i inventory.Instance) bool { return !drains(i) }) ||
		done.Transactions != 2 || done.Instances[0].ModRevision >= done.Instances[n-1].ModRevision || done.Instances[n-1].ModRevision != done.Revision {
		t.Errorf("%d endpoints in %d transactions, the last at revision %d: %+v", len(done.Instances), done.Transactions, done.Revision, done.Instances[n-1])
	}
	wantIn(t, "stderr", must(t, endpoint, "rm", "t-many", "10.0.0.1:80", "--yes").stderr, "it took 2 transactions")
	if r := rollcallAt(t, endpoint, "get", "t-many"); r.code != exitNotFound {
		t.Errorf("exit %d, want %d", r.code, exitNotFound)
	}
}

// TestResolveOfNothingUsable: keys are there and a channel sees none of them.
func TestResolveOfNothingUsable(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	put1(t, client, "t-none/a", `garbage`)
	put1(t, client, "t-none/b", `{"Addr":"10.0.0.1"}`)
	r := rollcallAt(t, endpoint, "resolve", "t-none")
	if r.code != exitNotFound || r.stdout != "" {
		t.Errorf("exit %d, stdout %q", r.code, r.stdout)
	}
	wantIn(t, "stderr", r.stderr, "1 invalid", "its only endpoint is disallowed")
	r = must(t, endpoint, "get", "t-none")
	wantIn(t, "stdout", r.stdout, "LEFT OUT", "invalid: value is not an endpoint", "disallowed:")
}

func TestWatchSaysWhenItIsStale(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "svc/a", `{"Addr":"10.0.0.1:80"}`)
	s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + server.Endpoint()}, "watch", "svc", "-o", "json")
	eventually(t, "the first line", func() bool { return strings.Contains(s.stdout.String(), "InstanceList") })
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a word on stderr", func() bool { return strings.Contains(s.stderr.String(), "stale since") })
	s.interrupt()
	if code := s.end(t); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	if n := strings.Count(s.stdout.String(), "\n"); n != 1 {
		t.Errorf("%d lines on stdout, want the first alone: %q", n, s.stdout.String())
	}
}

func TestHelp(t *testing.T) {
	a := &app{}
	for _, cmd := range newRoot(a).Commands() {
		if cmd.Hidden || !cmd.Runnable() {
			continue
		}
		t.Run(cmd.Name(), func(t *testing.T) {
			r := must(t, "127.0.0.1:1", cmd.Name(), "--help")
			wantIn(t, "help", r.stdout, "Usage:", "Examples:", "rollcall "+cmd.Name())
			if r.stderr != "" {
				t.Errorf("stderr = %q", r.stderr)
			}
			for line := range strings.Lines(r.stdout) {
				if len(line) > 120 {
					t.Errorf("long line: %q", line)
				}
			}
			if again := must(t, "127.0.0.1:1", "help", cmd.Name()); again.stdout != r.stdout {
				t.Errorf("help %s differs from %s --help", cmd.Name(), cmd.Name())
			}
		})
	}
	r := must(t, "127.0.0.1:1")
	wantIn(t, "help", r.stdout, "Exit codes:", "Look:", "Change:", "register", "--endpoints")
	wantIn(t, "version", must(t, "127.0.0.1:1", "--version").stdout, "rollcall version")
	wantIn(t, "completion", must(t, "127.0.0.1:1", "completion", "bash").stdout, "rollcall")
}
