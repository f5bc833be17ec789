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
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
)

func TestW1HistoryCompactedWhileCutOff(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	direct := etcd.Client(t)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	for _, id := range []string{"a", "b", "c"} {
		lab.Put(t, direct, "svc", id, nil)
	}
	f := lab.Follow(t, lab.Client(t, link.Addr()), "svc")
	f.Holds("a", "b", "c")

	link.Cut()
	f.GoesStale()
	lab.Remove(t, direct, "svc/a")
	lab.Put(t, direct, "svc", "d", nil)
	lab.Put(t, direct, "svc", "b", map[string]string{"version": "2"})
	for i := range 20 {
		lab.Put(t, direct, "other", fmt.Sprint(i), nil)
	}
	lab.Compact(t, direct)
	seen := f.Count()
	link.Mend()
	mended := time.Now()
	snap := f.Holds("b", "c", "d")
	t.Logf("live %v after mending", time.Since(mended))
	if got := snap.Instance("svc/b").Attributes.Version; got != "2" {
		t.Errorf("b has version %q, want 2", got)
	}
	if got := lab.Contents(f.Since(seen)); !slices.Equal(got, []string{"b c d"}) && !slices.Equal(got, []string{"a b c", "b c d"}) {
		t.Errorf("the difference came in steps: %q", got)
	}
	lab.Put(t, direct, "svc", "e", nil)
	f.Holds("b", "c", "d", "e")
}

func TestW2CompactedBetweenListAndWatch(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	direct := etcd.Client(t)
	lab.Put(t, direct, "svc", "a", nil)
	var once sync.Once
	cfg := rollcall.ClientConfig(etcd.Endpoints()...)
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainStreamInterceptor(
		func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if method == "/etcdserverpb.Watch/Watch" {
				once.Do(func() {
					lab.Put(t, direct, "svc", "b", nil)
					lab.Remove(t, direct, "svc/a")
					lab.Compact(t, direct)
				})
			}
			return streamer(ctx, desc, conn, method, opts...)
		}))
	f := lab.Follow(t, lab.ClientOf(t, cfg), "svc")
	f.Holds("b")
	for _, snap := range f.Since(0) {
		if snap.Stale() != nil {
			t.Errorf("marked stale: %v", snap.Stale().Cause)
		}
	}
}

func TestW5DataLost(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	direct := etcd.Client(t)
	for i := range 50 {
		lab.Put(t, direct, "svc", fmt.Sprintf("old-%02d", i), nil)
	}
	f := lab.Follow(t, lab.Client(t, etcd.Endpoints()...), "svc")
	f.Until("with 50", func(seen []*rollcall.Snapshot) bool {
		return len(seen) > 0 && len(seen[len(seen)-1].Instances()) == 50
	})
	member := etcd.Member(0)
	member.Stop()
	if mark := f.GoesStale(); mark.Since.IsZero() || mark.Cause == nil {
		t.Errorf("mark without since or cause: %+v", mark)
	}
	if got := len(f.Sub.Latest().Instances()); got != 50 {
		t.Errorf("%d endpoints while etcd was away, want 50", got)
	}
	member.Wipe()
	member.Start()
	started := time.Now()
	etcd.WaitReady()
	lab.Put(t, direct, "svc", "new-1", nil)
	snap := f.Holds("new-1")
	t.Logf("live %v after the start", time.Since(started))
	if snap.History() != 1 {
		t.Errorf("history %d, want 1", snap.History())
	}
	lab.Put(t, direct, "svc", "new-2", nil)
	f.Holds("new-1", "new-2")
}

func TestW8MembersKilledInTurn(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{Members: 3})
	direct := etcd.Client(t)
	server := lab.StartServer(t, "one")
	value, err := rollcall.Encode(server.Addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	lab.PutValue(t, direct, "calls/one", string(value))
	client := lab.Client(t, etcd.Endpoints()...)
	conn := lab.Dial(t, client, "etcd:///calls")
	if _, err := lab.Call(t, conn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() {
		for ctx.Err() == nil {
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
	if got := f.Sub.Latest().History(); got != 0 {
		t.Errorf("%d false alarms of a lost history", got)
	}
}

// A half-open connection is W4; here is the part of it that needs one member only.
func TestW4HalfOpenIsMarkedStale(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
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
	frozen := time.Now()
	f.GoesStale()
	t.Logf("marked stale %v after the freeze", time.Since(frozen))
	lab.Put(t, direct, "svc", "b", nil)
	link.Mend()
	f.Holds("a", "b")
}

// An idle cluster is no fault: nothing may be marked stale for silence alone.
func TestIdleClusterStaysLive(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	lab.Put(t, etcd.Client(t), "svc", "a", nil)
	f := lab.Follow(t, lab.Client(t, etcd.Endpoints()...), "svc")
	f.Holds("a")
	time.Sleep(18 * time.Second) // the bound of silence is 10 s, an answer may take 5 s
	for _, snap := range f.Since(0) {
		if snap.Stale() != nil {
			t.Errorf("marked stale: %v", snap.Stale().Cause)
		}
	}
	if n := f.Count(); n != 1 {
		t.Errorf("%d snapshots of a service that never changed", n)
	}
}
