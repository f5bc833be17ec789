// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func TestW3PartitionedMemberStillAnswers(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.NewPartitionable(t, etcdtest.Options{})
	lab.Record(t, etcd)
	lab.Put(t, etcd.Client(t), "svc", "a", nil)
	all := etcd.Endpoints()
	var followers []*lab.Follower
	for range lab.Size(30, 9) { // gRPC spreads them over the members
		followers = append(followers, lab.Follow(t, lab.Client(t, all...), "svc"))
	}
	pinned := lab.Follow(t, lab.Client(t, all[0]), "svc")
	for _, f := range append(followers, pinned) {
		f.Holds("a")
	}

	etcd.Isolate(0)
	isolated := time.Now()
	majority := etcd.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = all[1:] })
	lab.Put(t, majority, "svc", "b", nil)
	written := time.Now()
	for _, f := range followers {
		f.Holds("a", "b")
	}
	// Three election time-outs of 1 s and 2 s; a new leader may have to be found as well.
	lab.Within(t, fmt.Sprintf("all %d clients moved on", len(followers)), isolated, 7*time.Second)
	t.Logf("%v after the write", time.Since(written))
	stale := pinned.GoesStale()
	lab.Note(t, "a client of that member alone, until it is marked stale: %v, bound 5s", stale.Since.Sub(isolated).Round(time.Millisecond))
	if got := pinned.Sub.Latest(); got.Len() != 1 {
		t.Errorf("the client of that member alone holds %d endpoints", got.Len())
	}
	etcd.Rejoin(0)
	etcd.WaitReady()
	pinned.Holds("a", "b")
	for _, f := range append(followers, pinned) {
		if got := f.Sub.Latest().Epoch(); got != 1 {
			t.Errorf("%d false alarms of a new epoch", got)
		}
	}
}

// With Rollcall's client defaults and a second member a frozen connection is given up.
func TestW4HalfOpenRecoversByAnotherMember(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{Members: 3})
	direct := etcd.Client(t)
	lab.Put(t, direct, "svc", "a", nil)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	endpoints := append([]string{link.Addr()}, etcd.Endpoints()[1:]...)
	var followers []*lab.Follower
	for range 9 {
		f := lab.Follow(t, lab.Client(t, endpoints...), "svc")
		f.Holds("a")
		followers = append(followers, f)
	}
	link.Freeze()
	frozen := time.Now()
	lab.Put(t, direct, "svc", "b", nil)
	for _, f := range followers {
		f.Holds("a", "b")
	}
	lab.Within(t, "all live by another member", frozen, 15*time.Second)
}

// outage is W9, for a client that reaches etcd somehow: ready waits until it can.
func outage(t *testing.T, etcd *etcdtest.Cluster, client *clientv3.Client, ready func()) {
	lab.Put(t, etcd.Client(t), "svc", "a", nil)
	f := lab.Follow(t, client, "svc")
	f.Holds("a")
	etcd.Member(0).Stop()
	f.GoesStale()
	time.Sleep(time.Duration(lab.Size(75, 15)) * time.Second)
	if got := lab.IDs(f.Sub.Latest()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("held %v while etcd was away", got)
	}
	etcd.Member(0).Start()
	ready()
	began := time.Now()
	f.Holds("a")
	lab.Within(t, "live again", began, 5*time.Second)
	lab.Put(t, etcd.Client(t), "svc", "b", nil)
	f.Holds("a", "b")
}

func TestW9Outage(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	outage(t, etcd, lab.Client(t, etcd.Endpoints()...), etcd.WaitReady)
}

func TestW8MembersKilledInTurn(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{Members: 3})
	killedInTurn(t, etcd, lab.Client(t, etcd.Endpoints()...))
}

// killedInTurn is W8, for a client that reaches etcd somehow.
func killedInTurn(t *testing.T, etcd *etcdtest.Cluster, client *clientv3.Client) {
	direct := etcd.Client(t)
	server := lab.StartServer(t, "one")
	value, err := rollcall.Encode(server.Addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	lab.PutValue(t, direct, "calls/one", string(value))
	conn := lab.Dial(t, client, "etcd:///calls")
	if _, err := lab.Call(t, conn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	made := 0
	calls.Go(func() {
		for ; ctx.Err() == nil; made++ {
			if _, err := lab.Call(t, conn); err != nil {
				t.Errorf("call failed: %v", err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	f := lab.Follow(t, client, "svc")
	var want []string
	for i, member := range etcd.Members() {
		member.Kill()
		id := fmt.Sprint("while-down-", i)
		lab.Put(t, direct, "svc", id, nil)
		want = append(want, id)
		member.Start()
		etcd.WaitReady()
		id = fmt.Sprint("while-up-", i)
		lab.Put(t, direct, "svc", id, nil)
		want = append(want, id)
		f.Holds(slices.Clone(want)...)
	}
	cancel()
	calls.Wait()
	lab.Note(t, "%d calls", made)
	if got := f.Sub.Latest().Epoch(); got != 1 {
		t.Errorf("%d false alarms of a new epoch", got)
	}
}

// A half-open connection is W4; here is the part of it that needs one member only.
func TestW4HalfOpenIsMarkedStale(t *testing.T) {
	t.Parallel()
	frozen(t, lab.Start(t, etcdtest.Options{}))
}

func frozen(t *testing.T, etcd *etcdtest.Cluster) {
	direct := etcd.Client(t)
	lab.Put(t, direct, "svc", "a", nil)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	client := etcd.Client(t, func(cfg *clientv3.Config) { // any client: no keepalive
		cfg.Endpoints = []string{link.Addr()}
		cfg.DialKeepAliveTime, cfg.DialKeepAliveTimeout = 0, 0
	})
	f := lab.Follow(t, client, "svc")
	f.Holds("a")
	link.Freeze()
	began := time.Now()
	f.GoesStale()
	lab.Within(t, "marked stale after the freeze", began, 15*time.Second)
	lab.Put(t, direct, "svc", "b", nil)
	link.Mend()
	f.Holds("a", "b")
}

// An idle cluster is no fault: nothing may be marked stale for silence alone.
func TestIdleClusterStaysLive(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	idles(t, etcd, lab.Client(t, etcd.Endpoints()...))
}

func idles(t *testing.T, etcd *etcdtest.Cluster, client *clientv3.Client) {
	lab.Put(t, etcd.Client(t), "svc", "a", nil)
	f := lab.Follow(t, client, "svc")
	f.Holds("a")
	time.Sleep(18 * time.Second) // the bound of silence is 10 s, an answer may take 5 s
	for _, snap := range f.Since(0) {
		if snap.Staleness() != nil {
			t.Errorf("marked stale: %v", snap.Staleness().Cause)
		}
	}
	if n := f.Count(); n != 1 {
		t.Errorf("%d snapshots of a service that never changed", n)
	}
}
