// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// Fifty services of ordinary channels, each with its service config, list again together.
func TestW15ManyServicesCompactedWhileCutOff(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		const services = 50
		service := func(i int) string { return fmt.Sprintf("svc-%d", i) }
		link := etcdtest.NewLink(e.T, e.Reach[0])
		builder := e.BuilderOf(e.ClientWith(lab.At(link.Addr())))
		channels := make([]*lab.Channel, services)
		for i := range channels {
			lab.Put(e.T, e.Client, service(i), "a", nil)
			channels[i] = e.ResolveBy(builder, service(i))
		}
		for _, c := range channels {
			e.Shows(c, addrs("a")...)
		}
		link.Cut()
		time.Sleep(2 * time.Second)
		for i := range channels {
			lab.Put(e.T, e.Client, service(i), "b", nil)
			lab.Remove(e.T, e.Client, rollcall.Key(service(i), "a"))
		}
		lab.Compact(e.T, e.Client)
		link.Mend()
		mended := time.Now()
		for _, c := range channels {
			e.Shows(c, addrs("b")...)
		}
		e.Within(fmt.Sprintf("all %d services listed again after the link was mended", services), mended, time.Second)
	})
}

// A member without a leader is asked once by the connection, not by each service.
func TestW16NoLeader(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.NewPartitionable(t, etcdtest.Options{})
	sizes := []int{1, lab.Size(500, 100)}
	for i := range sizes[1] {
		lab.Put(t, etcd.Client(t), fmt.Sprintf("svc-%d", i), "a", nil)
	}
	auth := etcd.EnableAuth(t)
	auth.AddUser("reader", "r", etcdtest.Read("svc-"))
	type watching struct {
		rate *lab.Rate
		subs []*rollcall.Subscription
	}
	var clients []watching
	for _, services := range sizes {
		w := watching{rate: new(lab.Rate)}
		cfg := rollcall.ClientConfig(etcd.Endpoints()[0])
		auth.As("reader")(&cfg)
		w.rate.Count(&cfg)
		d, err := rollcall.NewDirectory(lab.ClientOf(t, cfg), rollcall.DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		for i := range services {
			sub, err := d.Subscribe(fmt.Sprintf("svc-%d", i))
			if err != nil {
				t.Fatal(err)
			}
			w.subs = append(w.subs, sub)
		}
		clients = append(clients, w)
	}
	all := func(what string, met func(*rollcall.Snapshot) bool) {
		t.Helper()
		ctx := lab.Context(t)
		for _, w := range clients {
			for _, sub := range w.subs {
				for snap := sub.Latest(); snap == nil || !met(snap); snap = sub.Latest() {
					select {
					case <-time.After(20 * time.Millisecond):
					case <-ctx.Done():
						t.Fatalf("not all are %s: %v, %v", what, snap, sub.Err())
					}
				}
			}
		}
	}
	live := func(snap *rollcall.Snapshot) bool { return snap.Staleness() == nil && snap.Len() == 1 }
	all("live", live)
	time.Sleep(time.Second) // until every watch is open
	etcd.Isolate(0)
	isolated := time.Now()
	all("stale", func(snap *rollcall.Snapshot) bool { return snap.Staleness() != nil && snap.Len() == 1 })
	stale := time.Now()
	lab.Within(t, fmt.Sprintf("all %d services are stale", sizes[1]), isolated, 5*time.Second)
	time.Sleep(time.Duration(lab.Size(60, 20)) * time.Second)
	for i, w := range clients {
		now := time.Now()
		first := w.rate.Sent(isolated, stale.Add(time.Second), "")
		average, peak := w.rate.Between(stale.Add(time.Second), now, "")
		logins := w.rate.Sent(isolated, now, "Authenticate")
		lab.Note(t, "%d services without a leader: %d messages until all were stale, then %.1f a second, %.0f at most; %d logins", sizes[i], first, average, peak, logins)
		if average > 5 {
			t.Errorf("%.1f messages a second for %d services", average, sizes[i])
		}
	}
	etcd.Rejoin(0)
	etcd.WaitReady()
	ready := time.Now()
	all("live again", live)
	lab.Within(t, "all are live again", ready, 6*time.Second)
}
