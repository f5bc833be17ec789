// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// bubble plays a test in virtual time, with a store and one client of it.
func bubble(t *testing.T, test func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		test(t, store, conn)
	})
}

func directory(t *testing.T, conn *fakeetcd.Conn) *rollcall.Directory {
	t.Helper()
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func subscribe(t *testing.T, d *rollcall.Directory, service string) *rollcall.Subscription {
	t.Helper()
	sub, err := d.Subscribe(service)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func deliver(t *testing.T, d *rollcall.Directory, service string, f func(*rollcall.Snapshot, error)) *rollcall.Delivery {
	t.Helper()
	delivery, err := d.SubscribeFunc(service, f)
	if err != nil {
		t.Fatal(err)
	}
	return delivery
}

// followConfig follows a service config until the Directory is closed.
func followConfig(d *rollcall.Directory, service string) error {
	_, err := d.SubscribeServiceConfigFunc(service, func(*rollcall.ServiceConfig, error) {})
	return err
}

func next(t *testing.T, sub *rollcall.Subscription) *rollcall.Snapshot {
	t.Helper()
	snap, err := sub.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// P7: of a burst, a consumer that pulls sees the newest each time, and the last is not skipped.
func TestP7BurstIsPulled(t *testing.T) {
	for _, work := range []time.Duration{0, 10 * time.Millisecond, 5 * time.Second} {
		t.Run(work.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				d := directory(t, conn)
				defer d.Close()
				sub := subscribe(t, d, "svc")
				defer sub.Close()
				next(t, sub)
				const burst = 2000
				var writer sync.WaitGroup
				defer writer.Wait()
				writer.Go(func() {
					for i := range burst {
						store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
						time.Sleep(time.Millisecond)
					}
				})
				seen := -1
				for seen < burst {
					n := next(t, sub).Len()
					if n <= seen {
						t.Fatalf("%d instances after %d", n, seen)
					}
					seen = n
					time.Sleep(work)
				}
			})
		})
	}
}

// P7: what is pushed to a slow function takes a fifth of the time, and the last is not skipped.
func TestP7PushedBurstIsFolded(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		const work, burst = 20 * time.Millisecond, 5000
		delivered, last := 0, 0
		sub, err := d.SubscribeFunc("svc", func(snap *rollcall.Snapshot, _ error) {
			time.Sleep(work)
			delivered++
			last = snap.Len()
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		time.Sleep(time.Second)
		for i := range burst {
			store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		// A fifth of 5 s, and what was saved up.
		if most := (time.Second + 250*time.Millisecond) / work; delivered > int(most) || last != burst {
			t.Errorf("%d snapshots, want at most %d; %d instances in the last, want %d", delivered, most, last, burst)
		}
	})
}

// P7: the first change after quiet goes out at once, whatever the last one took.
func TestP7FirstChangeAfterQuietIsNotHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		time.Sleep(10 * time.Second) // a slow consumer
		var wrote time.Time
		time.AfterFunc(time.Minute, func() {
			wrote = time.Now()
			store.Put("svc/a", `{"Addr":"a:1"}`)
		})
		next(t, sub)
		if lag := time.Since(wrote); lag > 0 {
			t.Errorf("held back for %v", lag)
		}
	})
}

// W14 and P8: one watch for all, and a consumer that never reads delays nobody.
func TestP8OneWatchForAll(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		stuck := subscribe(t, d, "svc")
		defer stuck.Close()
		var subs []*rollcall.Subscription
		for range 100 {
			sub := subscribe(t, d, "svc")
			defer sub.Close()
			next(t, sub)
			subs = append(subs, sub)
		}
		for i := range 10 {
			store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
			synctest.Wait()
			for _, sub := range subs {
				if got := next(t, sub).Len(); got != i+1 {
					t.Fatalf("%d instances, want %d", got, i+1)
				}
			}
		}
		if watches, lists := store.Watches(), conn.Calls(fakeetcd.Get); watches != 1 || lists != 1 {
			t.Errorf("%d watches and %d lists for 101 subscriptions", watches, lists)
		}
		if got := stuck.Latest().Len(); got != 10 {
			t.Errorf("the stuck one finds %d instances when it looks, want 10", got)
		}
	})
}

// P9: Close returns at once, whatever etcd does, and leaves nothing running.
func TestP9CloseJoins(t *testing.T) {
	for name, fault := range map[string]func(*fakeetcd.Conn){
		"healthy": func(*fakeetcd.Conn) {},
		"cut":     (*fakeetcd.Conn).Cut,
		"frozen":  (*fakeetcd.Conn).Freeze,
		"black hole": func(c *fakeetcd.Conn) {
			c.Freeze()
			c.Cut()
		},
		"no leader": (*fakeetcd.Conn).LoseLeader,
		"refusing":  func(c *fakeetcd.Conn) { c.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied) },
	} {
		for _, when := range []string{"before the first list", "after it", "long after it"} {
			t.Run(name+" "+when, func(t *testing.T) {
				bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
					d := directory(t, conn)
					if when == "before the first list" {
						fault(conn)
					}
					sub := subscribe(t, d, "svc")
					subscribe(t, d, "other")
					synctest.Wait()
					fault(conn)
					if when == "long after it" {
						time.Sleep(time.Minute)
					}
					began := time.Now()
					sub.Close()
					sub.Close()
					d.Close()
					if took := time.Since(began); took > 100*time.Millisecond {
						t.Errorf("Close took %v", took)
					}
					if _, err := d.Subscribe("svc"); !errors.Is(err, rollcall.ErrClosed) {
						t.Errorf("subscribe after Close: %v", err)
					}
				})
			})
		}
	}
}

// The client may be closed first; subscriptions keep what they had.
func TestClientClosedFirst(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		store.Put("svc/a", `{"Addr":"a:1"}`)
		d, err := rollcall.SharedDirectory(conn.Client)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := rollcall.SharedDirectory(conn.Client); again != d {
			t.Error("a client has two shared directories")
		}
		sub := subscribe(t, d, "svc")
		next(t, sub)
		conn.Close()
		synctest.Wait()
		if snap := sub.Latest(); snap.Len() != 1 || snap.Staleness() == nil {
			t.Errorf("got %s, want a, stale", describe(snap))
		}
		sub.Close()
		if _, err := d.Subscribe("svc"); !errors.Is(err, rollcall.ErrClosed) {
			t.Errorf("subscribe after the client's Close: %v", err)
		}
	})
}

func TestNoClient(t *testing.T) {
	if _, err := rollcall.NewDirectory(nil, rollcall.DirectoryOptions{}); err == nil {
		t.Error("a directory without a client")
	}
	if _, err := rollcall.SharedDirectory(nil); err == nil {
		t.Error("a shared directory without a client")
	}
}

// P3, W13: many prefixes that lose their watches together have the connection asked once,
// and open them again at once.
func TestWatchesThatEndTogether(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		const services = 50
		for i := range services {
			defer subscribe(t, d, fmt.Sprintf("svc-%d", i)).Close()
		}
		synctest.Wait()
		time.Sleep(65 * time.Second) // between two proofs of the stream
		gets, watches := conn.Calls(fakeetcd.Get), conn.Calls(fakeetcd.Watch)
		conn.CloseWatches()
		synctest.Wait()
		if n := store.Watches(); n != services {
			t.Errorf("%d watches at once, want %d", n, services)
		}
		if n := conn.Calls(fakeetcd.Get) - gets; n != 1 {
			t.Errorf("asked %d times", n)
		}
		if n := conn.Calls(fakeetcd.Watch) - watches; n != services {
			t.Errorf("%d watches opened", n)
		}
		// Those that end as soon as they are opened are opened with patience.
		for range 200 {
			conn.CloseWatches()
			time.Sleep(100 * time.Millisecond)
		}
		if n := conn.Calls(fakeetcd.Watch) - watches; n > services*12 {
			t.Errorf("%d watches opened in 20 s", n)
		}
	})
}

// A list in pages is taken at one revision, and again where compaction outran it.
func TestListInPages(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = 12_000
		for i := range n {
			store.Put(fmt.Sprintf("svc/%05d", i), `{"Addr":"a:1"}`)
		}
		pages := 0
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Get && call.Revision > 0 {
				if pages++; pages == 1 || pages == 3 { // the second page of two tries
					store.Put("svc/late", `{"Addr":"a:1"}`)
					if err := store.Compact(store.Revision()); err != nil {
						t.Error(err)
					}
				}
			}
			return nil
		})
		d := directory(t, conn)
		defer d.Close()
		snap, err := d.List(t.Context(), "svc")
		if err != nil || snap.Len() != n+1 || snap.Revision() != store.Revision() {
			t.Errorf("got %v, %v", snap, err)
		}
	})
}

// A large list is streamed, but for a client with a password, which would log in for it.
func TestListIsStreamed(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			const n = 1250
			for i := range n {
				store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
			}
			conn.StreamRanges(100)
			conn.Client.Username, conn.Client.Password = "user", password
			d := directory(t, conn)
			defer d.Close()
			snap, err := d.List(t.Context(), "svc")
			if err != nil || snap.Len() != n || snap.Revision() != store.Revision() {
				t.Errorf("got %v, %v", snap, err)
			}
			gets, streams := 1, 1
			if password != "" {
				gets, streams = 1, 0
			}
			if g, s := conn.Calls(fakeetcd.Get), conn.Calls(fakeetcd.GetStream); g != gets || s != streams {
				t.Errorf("password %q: %d pages and %d streams, want %d and %d", password, g, s, gets, streams)
			}
		})
	}
}

// A list that ends on the way is not mistaken for less; it is taken again.
func TestTornListIsNoList(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = 2000
		for i := range n {
			store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
		}
		conn.StreamRanges(300)
		d := directory(t, conn)
		defer d.Close()
		for _, cause := range []error{nil, rpctypes.ErrTimeout} { // nil: it falls silent
			conn.TearRangeStream(2, cause)
			if snap, err := d.List(t.Context(), "svc"); err != nil || snap.Len() != n {
				t.Errorf("torn by %v: got %v, %v", cause, snap, err)
			}
			conn.TearRangeStream(2, cause)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if snap, err := d.List(ctx, "svc"); err == nil {
				t.Errorf("torn by %v, and no time left: got %d instances", cause, snap.Len())
			}
			cancel()
		}
	})
}

// A whole tree can be followed too.
func TestSubscribePrefix(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		store.Put("a/1", `{"Addr":"a:1"}`)
		store.Put("b/c/2", `{"Addr":"a:1"}`)
		d := directory(t, conn)
		defer d.Close()
		for prefix, want := range map[string]string{"": "a/1 b/c/2", "a": "a/1", "b/": "b/c/2", "c": ""} {
			sub, err := d.SubscribePrefix(prefix)
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for inst := range next(t, sub).All() {
				keys = append(keys, inst.Key)
			}
			if got := strings.Join(keys, " "); got != want {
				t.Errorf("prefix %q: got %q, want %q", prefix, got, want)
			}
			sub.Close()
		}
	})
}

// A process that slept knows no more than it did: what it missed comes when it wakes.
func TestRefreshIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		lists := conn.Calls(fakeetcd.Get)
		for range 1000 { // over 10 s
			sub.Refresh()
			time.Sleep(10 * time.Millisecond)
		}
		if got := conn.Calls(fakeetcd.Get) - lists; got < 1 || got > 2 {
			t.Errorf("%d comparisons in 10 s, want 1 or 2", got)
		}
	})
}

// What was known of the way to etcd counts while somebody watches it.
func TestOldOutageFailsNoNewSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		next(t, sub)
		conn.Cut()
		time.Sleep(time.Minute)
		if sub.Latest().Staleness() == nil {
			t.Fatal("not stale after a minute")
		}
		sub.Close()
		conn.Mend()
		time.Sleep(time.Hour)
		again := subscribe(t, d, "svc")
		defer again.Close()
		if err := again.Err(); err != nil {
			t.Errorf("an hour after the outage: %v", err)
		}
		if snap := next(t, again); snap.Staleness() != nil {
			t.Errorf("got %s", describe(snap))
		}
	})
}

// A1: a token that stays refused is tried again with patience, however many prefixes.
func TestRefusedTokenMakesNoHotLoop(t *testing.T) {
	for _, services := range []int{1, 2, 20} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				d := directory(t, conn)
				defer d.Close()
				for i := range services {
					defer subscribe(t, d, fmt.Sprintf("svc-%d", i)).Close()
				}
				synctest.Wait()
				conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
					if call.Method == fakeetcd.Watch {
						time.Sleep(time.Millisecond)
						return rpctypes.ErrGRPCInvalidAuthToken
					}
					return nil
				})
				conn.BreakStreams()
				time.Sleep(20 * time.Second)
				if n := conn.Calls(fakeetcd.WatchStream); n > 30 {
					t.Errorf("%d streams in 20 s for %d prefixes", n, services)
				}
			})
		})
	}
}

// A hint is not an alarm: a comparison that fails leaves a healthy watch alone, and one on a
// service that changes all the time does not list it again and again.
func TestRefreshIsNoAlarm(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		conn.Fail(fakeetcd.Get, rpctypes.ErrTimeout)
		sub.Refresh()
		time.Sleep(time.Minute)
		if snap := sub.Latest(); snap.Staleness() != nil {
			t.Errorf("a failed comparison: %s", describe(snap))
		}
		conn.Fail(fakeetcd.Get, nil)
		lists := d.Stats().Lists
		for i := range 10_000 { // over 20 s
			store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
			sub.Refresh()
			time.Sleep(2 * time.Millisecond)
		}
		if got := d.Stats().Lists - lists; got > 3*2 {
			t.Errorf("%d lists in 20 s of changes, more than two each 10 s", got)
		}
	})
}

// W5: the epoch is verified with a prefix that may be read.
func TestLostEpochBesideDeniedPrefixes(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		for i := range 10 {
			store.Put(fmt.Sprintf("good/%d", i), `{"Addr":"a:1"}`)
		}
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if slices.ContainsFunc(call.Reads(), func(key string) bool { return strings.HasPrefix(key, "denied") }) {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return nil
		})
		d := directory(t, conn)
		defer d.Close()
		for i := range 30 {
			defer subscribe(t, d, fmt.Sprintf("denied-%d", i)).Close()
		}
		good := subscribe(t, d, "good")
		defer good.Close()
		next(t, good)
		time.Sleep(time.Minute)
		store.Wipe()
		store.Put("good/new", `{"Addr":"a:1"}`)
		time.Sleep(30 * time.Second)
		if snap := good.Latest(); snap.Epoch() != 2 || snap.Len() != 1 {
			t.Errorf("30 s after the wipe: %s", describe(snap))
		}
	})
}

func TestNextEndsWithErrClosed(t *testing.T) {
	bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		for _, end := range []func(*rollcall.Subscription){(*rollcall.Subscription).Close, func(*rollcall.Subscription) { d.Close() }} {
			sub := subscribe(t, d, "svc")
			next(t, sub)
			time.AfterFunc(time.Second, func() { end(sub) })
			for {
				_, err := sub.Next(context.Background())
				if err == nil {
					continue // the last snapshot, marked stale
				}
				if !errors.Is(err, rollcall.ErrClosed) {
					t.Errorf("got %v, want ErrClosed", err)
				}
				break
			}
		}
	})
}

// W5: a raft term that is lower for a moment is a follower that has just caught up by a
// snapshot; one that stays lower is another epoch.
func TestLowerRaftTerm(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		store.SetTerm(5)
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		list := func(service string) {
			other := subscribe(t, d, service)
			defer other.Close()
			next(t, other)
		}
		for i := range 3 {
			store.SetTerm(4)
			list(fmt.Sprint("low-", i))
			store.SetTerm(5)
			time.Sleep(10 * time.Second)
		}
		if snap := sub.Latest(); snap.Epoch() != 1 || snap.Staleness() != nil {
			t.Errorf("after moments of a lower term: %s", describe(snap))
		}
		store.SetTerm(4)
		list("low")
		time.Sleep(10 * time.Second)
		if snap := sub.Latest(); snap.Epoch() != 2 || snap.Staleness() != nil {
			t.Errorf("after 10 s of a lower term: %s", describe(snap))
		}
	})
}

// Streams that were given up while nobody answered end.
func TestStreamsGivenUpEnd(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		for range 3 {
			conn.Freeze()
			time.Sleep(time.Minute)
			conn.BreakStreams()
			time.Sleep(time.Minute)
			conn.Thaw()
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if n := strings.Count(string(stacks), "etcdkv.(*watchStream).run("); n != 1 {
			t.Errorf("%d watch streams are left, want one\n%s", n, stacks)
		}
	})
}

// A client with a namespace is asked by its own KV and Watcher, which prefix keys.
func TestNamespacedClient(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		conn.Client.KV = namespace.NewKV(conn.Client.KV, "team/")
		conn.Client.Watcher = namespace.NewWatcher(conn.Client.Watcher, "team/")
		d := directory(t, conn)
		defer d.Close()
		store.Put("team/svc/a", `{"Addr":"a:1"}`)
		store.Put("svc/x", `{"Addr":"x:1"}`)
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		synctest.Wait()
		store.Put("team/svc/b", `{"Addr":"b:1"}`)
		conn.BreakStreams()
		store.Put("svc/y", `{"Addr":"y:1"}`)
		store.Put("team/svc/c", `{"Addr":"c:1"}`)
		time.Sleep(time.Second)
		var keys []string
		for inst := range sub.Latest().All() {
			keys = append(keys, inst.Key)
		}
		if got := strings.Join(keys, " "); got != "svc/a svc/b svc/c" {
			t.Errorf("got %s", got)
		}
	})
}
