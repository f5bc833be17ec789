// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func grant(t *testing.T, conn *fakeetcd.Conn, ttl int64) clientv3.LeaseID {
	t.Helper()
	resp, err := conn.Client.Grant(t.Context(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return resp.ID
}

func put(t *testing.T, conn *fakeetcd.Conn, key, value string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := conn.Client.Put(t.Context(), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

// What is gone from etcd is asked for by its lease, once a lease, unless it was draining.
func TestDepartures(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		expires, lives := grant(t, conn, 5), grant(t, conn, 3600)
		put(t, conn, "svc/drained", `{"Addr":"a:1","Metadata":{"status":"draining"}}`, clientv3.WithLease(lives))
		put(t, conn, "svc/by-hand", `{"Addr":"a:2"}`, clientv3.WithLease(lives))
		put(t, conn, "svc/without-lease", `{"Addr":"a:3"}`)
		for i := range 1000 {
			put(t, conn, fmt.Sprintf("svc/expires-%03d", i), `{"Addr":"a:4"}`, clientv3.WithLease(expires))
		}
		snap, err := d.List(t.Context(), "svc")
		if err != nil {
			t.Fatal(err)
		}
		gone := slices.Collect(snap.All())
		check := func(expired rollcall.Departure, byHand rollcall.Departure) {
			t.Helper()
			for i, got := range d.Departures(t.Context(), gone...) {
				want := expired
				switch gone[i].ID() {
				case "drained":
					want = rollcall.DepartureLeft
				case "by-hand":
					want = byHand
				case "without-lease":
					want = rollcall.DepartureDeleted
				}
				if got != want {
					t.Fatalf("%s: got %q, want %q", gone[i].Key, got, want)
				}
			}
		}
		time.Sleep(10 * time.Second)
		check(rollcall.DepartureExpired, rollcall.DepartureDeleted)
		if n := conn.Calls(fakeetcd.TimeToLive); n != 2 {
			t.Errorf("%d calls about 2 leases", n)
		}
		conn.Cut()
		began := time.Now()
		check(rollcall.DepartureUnknown, rollcall.DepartureUnknown)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("gave up after %v", took)
		}
		gone = nil
		for i := range 1000 {
			gone = append(gone, &rollcall.Instance{Key: fmt.Sprintf("svc/%d", i), Lease: clientv3.LeaseID(i + 1)})
		}
		began = time.Now()
		check(rollcall.DepartureUnknown, rollcall.DepartureUnknown)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("gave up on 1000 leases after %v", took)
		}
	})
}

// An instance that was marked as draining and deleted before anybody was told of the mark has left,
// whatever became of its lease.
func TestDeparturesOfWhatDrainedUnseen(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		lease := grant(t, conn, 3600)
		put(t, conn, "svc/a", `{"Addr":"a:1"}`, clientv3.WithLease(lease))
		put(t, conn, "svc/b", `{"Addr":"a:2"}`, clientv3.WithLease(lease))
		sub := subscribe(t, d, "svc")
		before := next(t, sub)
		check := func(want ...rollcall.Departure) {
			t.Helper()
			if got := d.Departures(t.Context(), slices.Collect(before.All())...); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		put(t, conn, "svc/a", `{"Addr":"a:1","Metadata":{"status":"draining"}}`, clientv3.WithLease(lease))
		store.Delete("svc/a")
		store.Delete("svc/b")
		time.Sleep(time.Second)
		check(rollcall.DepartureLeft, rollcall.DepartureDeleted)
		// What comes back is another one.
		put(t, conn, "svc/a", `{"Addr":"a:1"}`, clientv3.WithLease(lease))
		time.Sleep(time.Second)
		before = sub.Latest()
		store.Delete("svc/a")
		time.Sleep(time.Second)
		check(rollcall.DepartureDeleted)
	})
}

// However many leave at once, a subscriber that is slow by less than a minute is told that they left.
// What they were is not kept for ever.
func TestDeparturesOfManyThatDrainedUnseen(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = 3000
		d := directory(t, conn)
		defer d.Close()
		for i := range n {
			store.Put(fmt.Sprintf("svc/%04d", i), `{"Addr":"a:1"}`)
		}
		sub := subscribe(t, d, "svc")
		before := next(t, sub)
		for i := range n {
			key := fmt.Sprintf("svc/%04d", i)
			store.Put(key, `{"Addr":"a:1","Metadata":{"status":"draining"}}`)
			store.Delete(key)
			time.Sleep(10 * time.Millisecond)
		}
		left := func() (count int) {
			for _, departure := range d.Departures(t.Context(), slices.Collect(before.All())...) {
				if departure == rollcall.DepartureLeft {
					count++
				}
			}
			return count
		}
		time.Sleep(25 * time.Second)
		if got := left(); got != n {
			t.Errorf("%d of %d left", got, n)
		}
		for range 2 {
			time.Sleep(time.Minute)
			store.Put("svc/new", `{"Addr":"a:1"}`)
		}
		time.Sleep(time.Second)
		if got := left(); got != 0 {
			t.Errorf("%d are remembered after two minutes", got)
		}
	})
}
