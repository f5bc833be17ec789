// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestInstanceCounts(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		store.Put("svc/a", `{"Addr":"a:1"}`)
		store.Put("svc/b", `{"Addr":"b:1","Metadata":{"status":"draining"}}`)
		store.Put("svc/c", `{"Addr":"unix:/c","Metadata":{"status":"draining"}}`)
		store.Put("svc/d", `nonsense`)
		sub := subscribe(t, d, "svc")
		next(t, sub)
		want := rollcall.InstanceCounts{Serving: 1, Draining: 1, Disallowed: 1, Invalid: 1}
		for range 2 {
			if got := d.ServiceStats()[0].Instances; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		store.Delete("svc/b")
		next(t, sub)
		want.Draining = 0
		if got := d.ServiceStats()[0].Instances; got != want {
			t.Errorf("after a deletion: %+v, want %+v", got, want)
		}
	})
}

func TestServiceStates(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		want := func(state rollcall.ServiceState, since time.Time, all rollcall.Stats) {
			t.Helper()
			stats, services := d.AllStats()
			if s := services[1]; s.State != state || !s.Since.Equal(since) {
				t.Errorf("%s since %v, want %s since %v", s.State, s.Since, state, since)
			}
			if stats.Services != 1 || stats.Views != 1 || stats.Stale != all.Stale || stats.Waiting != all.Waiting || (stats.Outage == nil) != (state == rollcall.ServiceCurrent) {
				t.Errorf("%s: %+v", state, stats)
			}
		}
		conn.Cut()
		began := time.Now()
		sub := subscribe(t, d, "svc")
		view, err := d.SubscribePrefix("sv") // is no service, in whatever state
		if err != nil {
			t.Fatal(err)
		}
		defer view.Close()
		time.Sleep(time.Minute)
		want(rollcall.ServiceWaiting, began, rollcall.Stats{Waiting: 1})
		conn.Mend()
		next(t, sub)
		time.Sleep(time.Minute)
		want(rollcall.ServiceCurrent, time.Time{}, rollcall.Stats{})
		conn.Cut()
		time.Sleep(time.Minute)
		want(rollcall.ServiceStale, sub.Latest().Staleness().Since, rollcall.Stats{Stale: 1})
	})
}

// Lists and watches that end are counted by cause.
func TestStatsByCause(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		next(t, sub)
		lists, restarts := map[string]uint64{"start": 1}, map[string]uint64{}
		check := func(when string) {
			t.Helper()
			got := d.Stats()
			if len(got.ListsBy) != 7 || len(got.RestartsBy) != 7 {
				t.Errorf("%s: causes %v and %v", when, got.ListsBy, got.RestartsBy)
			}
			sum := uint64(0)
			for cause, n := range got.ListsBy {
				if sum += n; n != lists[cause] {
					t.Errorf("%s: %d lists for %s, want %d", when, n, cause, lists[cause])
				}
			}
			if sum != got.Lists {
				t.Errorf("%s: %d lists by cause of %d", when, sum, got.Lists)
			}
			for cause, n := range got.RestartsBy {
				if n != restarts[cause] {
					t.Errorf("%s: %d watches ended by %s, want %d", when, n, cause, restarts[cause])
				}
			}
		}
		check("at the start")
		if _, err := d.List(context.Background(), "svc"); err != nil {
			t.Fatal(err)
		}
		lists["request"]++
		check("after a List")
		time.Sleep(time.Second)
		conn.CloseWatches()
		time.Sleep(5 * time.Second)
		restarts["disconnected"]++
		check("after the end of a watch")
		time.Sleep(time.Minute)
		conn.Freeze()
		time.Sleep(time.Minute)
		conn.Thaw()
		time.Sleep(5 * time.Second)
		restarts["stream_replaced"]++
		check("after a silent stream")
		conn.Cut()
		store.Put("svc/a", "")
		store.Put("svc/a", "")
		if err := store.Compact(store.Revision()); err != nil {
			t.Fatal(err)
		}
		conn.Mend()
		time.Sleep(5 * time.Second)
		lists["compacted"]++
		restarts["disconnected"]++
		restarts["compacted"]++
		check("after a compaction")
		conn.CancelWatches(rpctypes.ErrInvalidAuthToken)
		time.Sleep(5 * time.Second)
		restarts["token_refused"]++
		check("after a token was refused")
		conn.CancelWatches(rpctypes.ErrPermissionDenied)
		time.Sleep(5 * time.Second)
		lists["refused"]++
		restarts["refused"]++
		check("after a refusal")
		time.Sleep(20 * time.Minute)
		if got := d.Stats().ListsBy["check"]; got < 2 {
			t.Errorf("%d lists by consistency checks in 20 min", got)
		}
	})
}

// What is conflated, how long changes take to subscribers, and what became of services that are
// not followed any more.
func TestTotalsAndLatency(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		var delivered int
		slow, err := d.SubscribeFunc("svc", func(*rollcall.Snapshot, error) { delivered++; time.Sleep(30 * time.Millisecond) })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if h := d.Stats().Latency; h.Count != 0 || len(h.Buckets) == 0 {
			t.Errorf("a list has a latency: %+v", h)
		}
		const events = 50
		for i := range events {
			store.Put("svc/x", fmt.Sprintf(`{"Addr":"x:%d"}`, i+1))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		stats, services := d.AllStats()
		if services[0].Totals != stats.Totals || stats.Events != events || stats.Published-1+stats.Conflated != events {
			t.Errorf("%+v of %d events, service %+v", stats.Totals, events, services[0].Totals)
		}
		h := stats.Latency
		if h.Count != uint64(delivered-1) || h.Sum < 30*time.Millisecond || h.Sum > time.Duration(h.Count)*time.Second {
			t.Errorf("%d deliveries, latency %+v", delivered, h)
		}
		for i, b := range h.Buckets {
			if i > 0 && (b.Bound <= h.Buckets[i-1].Bound || b.Count < h.Buckets[i-1].Count) || b.Count > h.Count {
				t.Errorf("buckets %v", h.Buckets)
			}
		}
		if last := h.Buckets[len(h.Buckets)-1]; last.Count != h.Count {
			t.Errorf("%d of %d within %v", last.Count, h.Count, last.Bound)
		}
		slow.Close()
		if after, services := d.AllStats(); after.Totals != stats.Totals || len(services) > 0 {
			t.Errorf("after the last subscription: %+v, was %+v", after.Totals, stats.Totals)
		}
	})
}

// A subscriber that pulls is given a change when Next returns it; two changes are one then.
func TestLatencyOfNext(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		next(t, sub)
		store.Put("svc/a", `{"Addr":"a:1"}`)
		time.Sleep(2 * time.Second)
		store.Put("svc/b", `{"Addr":"b:1"}`)
		time.Sleep(time.Second)
		next(t, sub)
		synctest.Wait()
		if h := d.Stats().Latency; h.Count != 1 || h.Sum != 3*time.Second {
			t.Errorf("got %+v, want 1 of 3s", h)
		}
	})
}

// BenchmarkAllStats is what a scrape costs of 2,000 services with 100,000 instances: for "fresh" each
// service is counted again, as after a change.
func BenchmarkAllStats(b *testing.B) {
	store := fakeetcd.New()
	defer store.Close()
	conn := store.Connect(context.Background())
	defer conn.Close()
	for s := range 2000 {
		for i := range 50 {
			store.Put(fmt.Sprintf("svc-%d/%d", s, i), fmt.Sprintf(`{"Addr":"10.0.%d.%d:50051","Metadata":{"weight":100,"zone":"eu-1a","status":"draining"}}`, s%250, i))
		}
	}
	for _, name := range []string{"fresh", "unchanged"} {
		b.Run(name, func(b *testing.B) {
			d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			for s := range 2000 {
				sub, err := d.Subscribe(fmt.Sprintf("svc-%d", s))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := sub.Next(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				_, services := d.AllStats()
				if services[0].Instances.Draining != 50 {
					b.Fatalf("got %+v", services[0].Instances)
				}
				if name == "fresh" {
					for _, s := range services {
						s.Snapshot.Count(nil)
					}
				}
			}
		})
	}
}
