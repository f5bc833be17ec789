// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listed calls f with a snapshot of the keys that start with prefix, in virtual time.
func listed(t *testing.T, prefix string, fill func(*fakeetcd.Store, *clientv3.Client), f func(*fakeetcd.Conn, *rollcall.Snapshot)) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		fill(store, conn.Client)
		dir, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		snap, err := dir.ListPrefix(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		f(conn, snap)
	})
}

func shop(s *fakeetcd.Store, _ *clientv3.Client) {
	s.Put("shop/a/1", `{"Addr":"10.0.0.1:80","Metadata":{"weight":10,"zone":"eu-2","region":"eu","subzone":"r1","version":"v2","started":"2026-01-02T03:04:05Z","host":"web-1"}}`)
	s.Put("shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"status":"draining","zone":"eu-1","weight":"heavy"}}`)
	s.Put("shop/c", "text")
	s.Put("shop/d", `{"Addr":"10.0.0.4"}`)
	s.Put("shop/\xff", `{"Addr":"10.0.0.5:80","Metadata":{"zone":"eu-1"}}`)
	s.Put("none", `{"Addr":"10.0.0.6:80"}`)
	s.Put(rollcall.ConfigPrefix+"shop", `{}`)
}

func TestInstances(t *testing.T) {
	listed(t, "shop/", shop, func(_ *fakeetcd.Conn, snap *rollcall.Snapshot) {
		want := []Instance{
			{Key: "shop/a/1", Service: "shop", ID: "a/1", Addr: "10.0.0.1:80", Status: Serving, Weight: 10, Region: "eu", Zone: "eu-2", Subzone: "r1",
				Version: "v2", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Host: "web-1", CreateRevision: 2, ModRevision: 2},
			{Key: "shop/b", Service: "shop", ID: "b", Addr: "10.0.0.2:80", Status: Draining, Weight: 1, Zone: "eu-1",
				FieldErrors: []FieldError{{"weight", "want a whole number from 1 to 4294967295"}}, CreateRevision: 3, ModRevision: 3},
			{Key: "shop/c", Service: "shop", ID: "c", Status: Invalid, Cause: snap.Invalid()[0].Cause.Error(), CreateRevision: 4, ModRevision: 4},
			{Key: "shop/d", Service: "shop", ID: "d", Addr: "10.0.0.4", Status: Disallowed, Weight: 1,
				Cause: "it must be host:port, for example 10.0.0.7:50051", CreateRevision: 5, ModRevision: 5},
			{Key: "shop/\xff", KeyBase64: "c2hvcC//", Service: "shop", ID: "\xff", Addr: "10.0.0.5:80", Status: Serving, Weight: 1, Zone: "eu-1",
				CreateRevision: 6, ModRevision: 6},
		}
		got := Instances(snap, Under("shop"))
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Instance{}, "Metadata"), cmpopts.IgnoreUnexported(Instance{})); diff != "" {
			t.Errorf("rows differ (-want +got):\n%s", diff)
		}
		if why := got[3].Why(); why != "disallowed: it must be host:port, for example 10.0.0.7:50051" || got[0].Why() != "" {
			t.Errorf("why = %q and %q", why, got[0].Why())
		}
	})
}

func TestRetainedInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		for _, id := range []string{"a", "b", "c"} {
			store.Put("shop/"+id, `{"Addr":"10.0.0.1:80"}`)
		}
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		dir, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5}})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		sub, err := dir.Subscribe("shop")
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		snap, err := sub.First(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		store.Delete("shop/a")
		store.Delete("shop/b")
		for snap.Len() > 1 || len(snap.Retained()) == 0 {
			if snap, err = sub.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, row := range Instances(snap, Under("shop")) {
			got = append(got, row.ID+" "+string(row.Status))
		}
		if want := []string{"a retained", "b retained", "c serving"}; !slices.Equal(got, want) {
			t.Errorf("rows = %v, want %v", got, want)
		}
		if s := Services(snap)[0]; s.Instances != 3 || s.Retained != 2 || s.Serving != 1 {
			t.Errorf("counts = %+v", s)
		}
	})
}

func TestServices(t *testing.T) {
	fill := func(s *fakeetcd.Store, client *clientv3.Client) {
		shop(s, client)
		s.Put("shop/e", `{"Addr":"10.0.0.7:80"}`)
		s.Put("pay/a", `{"Addr":"10.0.0.7:80"}`)
	}
	listed(t, "", fill, func(_ *fakeetcd.Conn, snap *rollcall.Snapshot) {
		want := []Service{
			{Service: "pay", Instances: 1, Serving: 1, Zones: []string{}, ModRevision: 10},
			{Service: "shop", Instances: 5, Serving: 2, Draining: 1, Invalid: 1, Disallowed: 1, Zones: []string{"eu-1"}, ModRevision: 9},
			{Service: "shop/a", Instances: 1, Serving: 1, Zones: []string{"eu-2"}, ModRevision: 2},
		}
		if diff := cmp.Diff(want, Services(snap)); diff != "" {
			t.Errorf("services differ (-want +got):\n%s", diff)
		}
		if got := want[1].LeftOut(); got != 2 {
			t.Errorf("left out = %d", got)
		}
	})
}

// Zones are others' text: to count 100,000 of them takes no longer than instances do.
func TestServicesOfManyZones(t *testing.T) {
	rows := make([]*Instance, 100_000)
	for i := range rows {
		rows[i] = &Instance{Service: "s", Status: Serving, Zone: fmt.Sprintf("z%05d", i/2)}
	}
	began := time.Now()
	s := Count(rows)[0]
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if shown := s.ShownZones(); len(s.Zones) != 50_000 || len(shown) != 11 || shown[9] != "z00009" || shown[10] != "and 49990 more" {
		t.Errorf("%d zones, shown as %q", len(s.Zones), shown)
	}
	if few := (Service{Zones: []string{"a", "b"}}).ShownZones(); !slices.Equal(few, []string{"a", "b"}) {
		t.Errorf("few zones are shown as %q", few)
	}
}

func TestOtherFields(t *testing.T) {
	for metadata, want := range map[string]string{
		``:       "",
		`"text"`: "text",
		`[1, 2]`: "[1,2]",
		`{"z":1.50,"weight":3,"zone":"a","version":"v","status":"serving","started":"2026-01-02T03:04:05Z","a":{"b": [1, 2]},"n":null,"s":"x y","e":"","host":"h"}`: `z=1.50 a={"b":[1,2]} n=null s="x y" e="" host=h`,
		`{"weight":"3","zone":4,"version":"v"}`: `weight=3 zone=4`,
	} {
		inst := &rollcall.Instance{Key: "s/i", Addr: "a:1", Metadata: []byte(metadata)}
		var got []string
		for _, field := range Of(inst, rollcall.SplitKey).OtherFields() {
			got = append(got, field.String())
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("fields of %s = %s, want %s", metadata, text, want)
		}
	}
}

func TestDuration(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for want, d := range map[string]time.Duration{
		"0s": -time.Hour, "119s": 2*time.Minute - 1, "2m": 2 * time.Minute, "2m5s": 125 * time.Second, "10m": 10*time.Minute + time.Second,
		"179m": 3*time.Hour - 1, "3h": 3 * time.Hour, "7h59m": 8*time.Hour - 1, "8h": 8*time.Hour + time.Minute, "47h": 2*day - 1,
		"2d": 2 * day, "7d23h": 8*day - 1, "8d": 8*day + time.Hour, "729d": 2*year - 1, "2y": 2 * year, "3y12d": 3*year + 12*day, "8y": 8*year + 3*day,
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := Age(now.Add(-time.Minute), now); got != "60s" {
		t.Errorf("age = %s", got)
	}
	if got := Age(time.Time{}, now); got != "-" {
		t.Errorf("age of an unknown start = %s", got)
	}
}

func TestTTLs(t *testing.T) {
	var granted []clientv3.LeaseID
	fill := func(s *fakeetcd.Store, client *clientv3.Client) {
		for i, key := range []string{"shop/a", "shop/c"} {
			lease, err := client.Grant(t.Context(), int64(30*(i+1)))
			if err != nil {
				t.Fatal(err)
			}
			granted = append(granted, lease.ID)
			if _, err := client.Put(t.Context(), key, `{"Addr":"10.0.0.1:80"}`, clientv3.WithLease(lease.ID)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client.Put(t.Context(), "shop/b", "nothing", clientv3.WithLease(granted[0])); err != nil {
			t.Fatal(err)
		}
		s.Put("shop/d", `{"Addr":"10.0.0.1:80"}`)
	}
	texts := func(rows []Instance) (all []string) {
		for _, row := range rows {
			all = append(all, row.TTLText())
		}
		return all
	}
	listed(t, "shop/", fill, func(conn *fakeetcd.Conn, snap *rollcall.Snapshot) {
		rows := Instances(snap, Under("shop"))
		leases := Leases(rows)
		if !slices.Equal(leases, granted) {
			t.Fatalf("leases = %v", leases)
		}
		time.Sleep(3 * time.Second)
		ttls, err := LookUp(t.Context(), conn.Client, append(leases, 9))
		if err != nil {
			t.Fatal(err)
		}
		SetTTLs(rows, ttls)
		if got, want := texts(rows), []string{"27s/30s", "27s/30s", "57s/60s", ""}; !slices.Equal(got, want) {
			t.Errorf("TTLs = %q, want %q", got, want)
		}
		SetTTLs(rows, map[clientv3.LeaseID]TTL{leases[1]: ttls[9]})
		if got := rows[2].TTLText(); got != "ended" {
			t.Errorf("TTL of an ended lease = %q", got)
		}
		conn.Fail(fakeetcd.TimeToLive, errors.New("boom"))
		if _, err := LookUp(t.Context(), conn.Client, leases); err == nil || !strings.Contains(err.Error(), "TTL of 2 of 2 leases") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestEventsOfNothing(t *testing.T) {
	if got := Events(nil, &rollcall.Snapshot{}, rollcall.SplitKey); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// followed calls f with a subscription to shop's keys, in virtual time.
func followed(t *testing.T, f func(*testing.T, *fakeetcd.Store, *rollcall.Directory, *rollcall.Subscription)) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		dir, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5}})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		shop(store, conn.Client)
		sub, err := dir.SubscribePrefix("shop/")
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		f(t, store, dir, sub)
	})
}

// Where etcd has lost its data nobody need have deleted a key.
func TestEventsOfLostData(t *testing.T) {
	followed(t, func(t *testing.T, store *fakeetcd.Store, dir *rollcall.Directory, sub *rollcall.Subscription) {
		reasons := func(lose func()) []rollcall.Departure {
			time.Sleep(time.Second)
			before, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lose()
			time.Sleep(20 * time.Second)
			after, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			events := Events(before, after, rollcall.SplitKey)
			Explain(t.Context(), dir, events)
			var all []rollcall.Departure
			for _, e := range events {
				all = append(all, e.Reason)
			}
			return all
		}
		if got, want := reasons(func() { store.Delete("shop/d") }), []rollcall.Departure{rollcall.DepartureDeleted}; !slices.Equal(got, want) {
			t.Errorf("a key is deleted: %q, want %q", got, want)
		}
		store.Put("shop/d", `{"Addr":"10.0.0.4"}`)
		if got, want := reasons(store.Wipe), slices.Repeat([]rollcall.Departure{rollcall.DepartureUnknown}, 4); !slices.Equal(got, want) {
			t.Errorf("data is lost: %q, want %q", got, want)
		}
	})
}

// A Follower's rows are those of Instances, and are the same ones where nothing was written.
func TestFollower(t *testing.T) {
	followed(t, func(t *testing.T, store *fakeetcd.Store, _ *rollcall.Directory, sub *rollcall.Subscription) {
		f := NewFollower(rollcall.SplitKey)
		before := make(map[string]*Instance)
		for _, written := range []map[string]string{
			{},
			{"shop/b": `{"Addr":"10.0.0.9:80"}`, "shop/c": `{"Addr":"10.0.0.10:80"}`, "shop/e": "text"},
			{"shop/b": "", "shop/c": "", "shop/\xff": ""},
		} {
			for key, value := range written {
				if value == "" {
					store.Delete(key)
				} else {
					store.Put(key, value)
				}
			}
			time.Sleep(time.Second)
			snap, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rows := f.Next(snap)
			got := make([]Instance, 0, len(rows))
			for _, row := range rows {
				got = append(got, *row)
				if _, changed := written[row.Key]; before[row.Key] != nil && !changed && before[row.Key] != row {
					t.Errorf("%q was made anew", row.Key)
				}
				before[row.Key] = row
			}
			if diff := cmp.Diff(Instances(snap, rollcall.SplitKey), got, cmp.AllowUnexported(Instance{})); diff != "" {
				t.Errorf("rows differ (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(Services(snap), Count(rows)); diff != "" {
				t.Errorf("counts differ (-want +got):\n%s", diff)
			}
		}
	})
}
