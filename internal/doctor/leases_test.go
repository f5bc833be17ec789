// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// What to do about a server that cannot be reached depends on its lease.
func TestSilentServers(t *testing.T) {
	f := healthy()
	ended := add(f, row("shop/b", inventory.Serving), row("shop/-c", inventory.Serving), row("shop/d", inventory.Serving), row("shop/e", inventory.Serving),
		row("shop/f", inventory.Serving))
	rows := f.Services[0].Rows
	rows[5].Lease = ""
	ended.Lease, rows[2].Lease, rows[3].Lease, rows[4].Lease = "bcd", "", "cde", "def"
	for _, r := range rows {
		f.Answers[r.Addr] = Answer{Error: "connection refused"}
	}
	f.Answers[rows[5].Addr] = Answer{Error: "i/o timeout"}
	f.Answers["10.9.9.9:80"] = Answer{Connected: true, Answers: true}
	f.First["bcd"], f.First["cde"], f.First["def"] = f.First["abc"], f.First["abc"], f.First["abc"]
	f.Watched = map[string]Watched{"abc": {Renewed: true}, "bcd": {TTL: inventory.TTL{Granted: 30, Left: 12}, Through: true}, "def": {TTL: inventory.TTL{Granted: 60, Left: 45}}}
	type told struct {
		What     string
		Commands [][]string
	}
	var got []told
	for _, finding := range serverChecks[0].find(f) {
		got = append(got, told{finding.What, finding.Commands})
	}
	ping, get := []string{"rollcall", "ping", "shop"}, []string{"rollcall", "get", "shop"}
	want := []told{
		{`2 endpoints without a lease cannot be reached: "shop/-c" (10.0.2.1:80: connection refused), "shop/f" (10.0.2.4:80: i/o timeout)`,
			[][]string{ping, {"rollcall", "rm", "--", "shop", "-c"}}},
		{`1 endpoint cannot be reached, although the lease is renewed: "shop/a" (10.0.0.1:80: connection refused)`, [][]string{ping}},
		{`1 endpoint cannot be reached, and nothing was seen to renew the lease: "shop/b" (10.0.2.0:80: connection refused; 12 of 30 s left)`, [][]string{ping, get}},
		{`1 endpoint cannot be reached, and the lease was not watched for long enough to see whether it is renewed: "shop/e" (10.0.2.3:80: connection refused; 45 of 60 s left)`, [][]string{ping, get}},
		{`1 endpoint cannot be reached, and the lease could not be looked up: "shop/d" (10.0.2.2:80: connection refused)`, [][]string{ping, get}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found differs (-want +got):\n%s", diff)
	}
	cutOff := func(want string) { // that may be due to this host
		t.Helper()
		found := serverChecks[0].find(f)
		if len(found) != len(got) {
			t.Errorf("cut off, %d findings, want %d", len(found), len(got))
		}
		for _, finding := range found {
			if !cmp.Equal(finding.Commands, [][]string{ping}) || !strings.HasPrefix(finding.Fix, want) || !strings.Contains(finding.Fix, "see the network") {
				t.Errorf("cut off, found %+v", finding)
			}
		}
	}
	for i := range 3 {
		if found := serverChecks[0].find(f); cmp.Equal(found[0].Commands, [][]string{ping}) {
			t.Errorf("1 of %d can be reached: that is no cut, found %+v", len(f.Answers), found[0])
		}
		f.Answers[fmt.Sprintf("10.9.9.%d:80", i)] = Answer{Error: "i/o timeout"}
	}
	cutOff("Only 1 of 10 servers that were dialled can be reached from here")
	delete(f.Answers, "10.9.9.9:80")
	cutOff("No server that was dialled can be reached from here")
}

// Only what is seen of a lease under one leader tells whether it is renewed: a new one gives every lease its whole TTL.
func TestWatch(t *testing.T) {
	renew := func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn, lease clientv3.LeaseID) {
		if _, err := conn.Client.KeepAliveOnce(t.Context(), lease); err != nil {
			t.Error(err)
		}
	}
	elect := func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, lease clientv3.LeaseID) {
		store.SetTerm(9)
		renew(t, store, conn, lease)
	}
	for _, row := range []struct {
		name  string
		ttl   int64
		after time.Duration // of the grant; the watch begins 3 s after it
		what  func(*testing.T, *fakeetcd.Store, *fakeetcd.Conn, clientv3.LeaseID)
		want  string
	}{
		{"renewed", 30, 9500 * time.Millisecond, renew, "renewed"},
		{"not renewed", 30, 2 * time.Second, renew, "through"},
		{"a new leader at once", 20, 4500 * time.Millisecond, elect, "through"},
		{"a new leader late", 30, 9500 * time.Millisecond, elect, "unknown"},
		{"a long TTL", 60, time.Second, renew, "unknown"},
		{"ended", 12, 4500 * time.Millisecond, func(_ *testing.T, store *fakeetcd.Store, _ *fakeetcd.Conn, lease clientv3.LeaseID) {
			store.ExpireLease(lease)
		}, "through"},
		{"not looked up", 30, time.Second, func(_ *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn, _ clientv3.LeaseID) {
			conn.Fail(fakeetcd.TimeToLive, errors.New("broken"))
		}, "missing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fakeetcd.New()
				defer store.Close()
				conn := store.Connect(context.Background())
				granted, err := conn.Client.Grant(t.Context(), row.ttl)
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(row.after, func() { row.what(t, store, conn, granted.ID) })
				time.Sleep(3 * time.Second)
				g := &gathering{Facts: &Facts{}, opts: Options{Client: conn.Client, Timeout: time.Second}}
				g.watch(t.Context(), []clientv3.LeaseID{granted.ID})
				lease, known := g.Watched[inventory.LeaseText(granted.ID)]
				got := "unknown"
				switch {
				case !known:
					got = "missing"
				case lease.Renewed:
					got = "renewed"
				case lease.Through:
					got = "through"
				}
				if got != row.want {
					t.Errorf("it is %s (%+v), want %s", got, lease, row.want)
				}
			})
		})
	}
}

// A large system whose keys were all written again is looked through within bounds, and what takes too long is no fault of it.
func TestFormerLeasesOfManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		grant := func() clientv3.LeaseID {
			granted, err := conn.Client.Grant(t.Context(), 600)
			if err != nil {
				t.Fatal(err)
			}
			return granted.ID
		}
		earlier, present := grant(), grant()
		write := func(key string, lease clientv3.LeaseID) {
			put(t, conn.Client, key, "10.0.0.1:80", clientv3.WithLease(lease))
		}
		write("shop/0", earlier) // before all others
		const keys = 2 * keysBack
		for i := range writesBack + 2 {
			for n := range keys {
				write(fmt.Sprintf("shop/%d", n), present)
			}
			if i == 0 {
				write("shop/150", earlier)
			}
		}
		write("shop/9", earlier)
		write("shop/9", present)
		var s Service
		for _, kv := range store.KeyValues() {
			r := row(string(kv.Key), inventory.Serving)
			r.Lease, r.CreateRevision, r.ModRevision = inventory.LeaseText(present), kv.CreateRevision, kv.ModRevision
			s.Rows = append(s.Rows, r)
		}
		g := &gathering{Facts: &Facts{Services: []Service{s}}, opts: Options{Client: conn.Client, Timeout: time.Second}}
		g.formerLeases(t.Context())
		if diff := cmp.Diff(map[string]clientv3.LeaseID{"shop/9": earlier}, g.emptied); diff != "" || len(g.Unknown) > 0 {
			t.Errorf("found differs (-want +got):\n%s, unknown %q", diff, g.Unknown)
		}
		if reads := conn.Calls(fakeetcd.Get); reads > keysBack*writesBack {
			t.Errorf("%d reads", reads)
		}
		conn.SetHook(func(ctx context.Context, _ fakeetcd.Call) error { <-ctx.Done(); return ctx.Err() })
		g.formerLeases(t.Context())
		if len(g.Unread) > 0 || len(g.Unknown) != 1 || len(g.emptied) > 0 {
			t.Errorf("where time runs out: unread %q, unknown %q, found %v", g.Unread, g.Unknown, g.emptied)
		}
	})
}
