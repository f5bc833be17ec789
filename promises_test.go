// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// The promises of a watch that have no test of their name elsewhere. P1 is in snapshot_test.go,
// P7 and P9 in directory_test.go, P8 there and in serviceconfig_test.go.

// ids lists a snapshot's instances by id.
func ids(snap *rollcall.Snapshot) (ids string) {
	for inst := range snap.All() {
		ids += inst.ID()
	}
	return ids
}

// P2: within an epoch revisions never go backwards, whichever member answers.
func TestP2NeverBackwards(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		sub := subscribe(t, d, "svc")
		seen := make(map[int]int64) // revision by epoch
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-sub.Changed():
				case <-stop:
					return
				}
				if snap := sub.Latest(); snap != nil {
					if snap.Revision() < seen[snap.Epoch()] {
						t.Errorf("revision %d after %d in epoch %d", snap.Revision(), seen[snap.Epoch()], snap.Epoch())
					}
					seen[snap.Epoch()] = snap.Revision()
				}
			}
		}()
		for i := range 10 {
			store.Put(fmt.Sprintf("svc/%d", i), `{"Addr":"a:1"}`)
			conn.Lag(int64(i))
			conn.LoseLeader() // a member that is behind is asked for what it has
			conn.CancelWatches(rpctypes.ErrCompacted)
			time.Sleep(3 * time.Second)
			conn.FindLeader()
			if i == 5 {
				store.Wipe()
				store.Put("svc/x", `{"Addr":"x:1"}`)
			}
			time.Sleep(15 * time.Second)
		}
		close(stop)
		<-done
		if len(seen) != 2 {
			t.Errorf("seen %v, want two epochs", seen)
		}
	})
}

// P3: whatever ends a watch, the service converges, and is listed again only after compaction.
func TestP3AlwaysConverges(t *testing.T) {
	for name, row := range map[string]struct {
		end   func(*fakeetcd.Store, *fakeetcd.Conn)
		lists int
	}{
		"streams broken":   {func(_ *fakeetcd.Store, c *fakeetcd.Conn) { c.BreakStreams() }, 1},
		"channel closed":   {func(_ *fakeetcd.Store, c *fakeetcd.Conn) { c.CloseWatches() }, 1},
		"leader lost":      {func(_ *fakeetcd.Store, c *fakeetcd.Conn) { c.LoseLeader(); time.AfterFunc(5*time.Second, c.FindLeader) }, 1},
		"link cut":         {func(_ *fakeetcd.Store, c *fakeetcd.Conn) { c.Cut(); time.AfterFunc(5*time.Second, c.Mend) }, 1},
		"unexpected error": {func(_ *fakeetcd.Store, c *fakeetcd.Conn) { c.CancelWatches(errors.New("some fault")) }, 1},
		"token expired":    {func(_ *fakeetcd.Store, c *fakeetcd.Conn) { c.CancelWatches(rpctypes.ErrInvalidAuthToken) }, 1},
		"compacted": {func(s *fakeetcd.Store, c *fakeetcd.Conn) {
			c.Cut()
			time.AfterFunc(5*time.Second, func() {
				if err := s.Compact(s.Revision()); err != nil {
					t.Error(err)
				}
				c.Mend()
			})
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				d := directory(t, conn)
				defer d.Close()
				store.Put("svc/a", `{"Addr":"a:1"}`)
				store.Put("svc/b", `{"Addr":"b:1"}`)
				sub := subscribe(t, d, "svc")
				next(t, sub)
				time.Sleep(time.Second)
				row.end(store, conn)
				store.Delete("svc/a")
				store.Put("svc/c", `{"Addr":"c:1"}`)
				time.Sleep(15 * time.Second)
				if snap := sub.Latest(); ids(snap) != "bc" || snap.Staleness() != nil {
					t.Errorf("got %s, want b and c", describe(snap))
				}
				if got := d.Stats().Lists; got != uint64(row.lists) {
					t.Errorf("%d lists, want %d", got, row.lists)
				}
			})
		})
	}
}

// P4: while etcd cannot be reached the last snapshot stays, marked stale since when and why,
// and outlives its last subscriber.
func TestP4StaticStability(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		store.Put("svc/a", `{"Addr":"a:1"}`)
		sub := subscribe(t, d, "svc")
		next(t, sub)
		time.Sleep(time.Second)
		cut := time.Now()
		conn.Cut()
		time.Sleep(time.Hour)
		want := func(snap *rollcall.Snapshot) {
			t.Helper()
			if ids(snap) != "a" || snap.Staleness() == nil || snap.Staleness().Cause == nil {
				t.Fatalf("got %s, want a, stale", describe(snap))
			}
			if since := snap.Staleness().Since.Sub(cut); since < 0 || since > 20*time.Second {
				t.Errorf("stale since %v after the link was cut", since)
			}
		}
		want(sub.Latest())
		sub.Close()
		time.Sleep(20 * time.Minute)
		sub = subscribe(t, d, "svc")
		want(next(t, sub))
		store.Delete("svc/a")
		store.Put("svc/b", `{"Addr":"b:1"}`)
		conn.Mend()
		time.Sleep(15 * time.Second)
		if snap := sub.Latest(); ids(snap) != "b" || snap.Staleness() != nil {
			t.Errorf("got %s, want b", describe(snap))
		}
	})
}

// P5: silence on the watch's own stream is noticed within 15 s, a new epoch by the first
// linearizable response, and what no event tells by a consistency check.
func TestP5SilenceAndNewEpochsAreNoticed(t *testing.T) {
	start := func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) *rollcall.Subscription {
		d := directory(t, conn)
		t.Cleanup(d.Close)
		for range 5 {
			store.Put("svc/a", `{"Addr":"a:1"}`)
		}
		sub := subscribe(t, d, "svc")
		next(t, sub)
		time.Sleep(time.Minute)
		return sub
	}
	t.Run("silence", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			sub := start(t, store, conn)
			conn.Freeze() // other calls are answered
			store.Put("svc/b", `{"Addr":"b:1"}`)
			time.Sleep(15*time.Second + 500*time.Millisecond)
			if snap := sub.Latest(); ids(snap) != "ab" {
				t.Errorf("got %s, want b too", describe(snap))
			}
		})
	})
	t.Run("epoch", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			sub := start(t, store, conn)
			store.Wipe()
			store.Put("svc/b", `{"Addr":"b:1"}`)
			sub.Refresh() // asks within a second
			time.Sleep(2 * time.Second)
			if snap := sub.Latest(); ids(snap) != "b" || snap.Epoch() != 2 {
				t.Errorf("got %s, want b in epoch 2", describe(snap))
			}
		})
	})
	t.Run("inconsistency", func(t *testing.T) {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			store.Put("svc/old", `{"Addr":"o:1"}`)
			backup := store.Snapshot()
			store.Delete("svc/old")
			sub := start(t, store, conn)
			store.Restore(backup, 0)
			for i := range 10 { // it overtakes what was seen before anybody asks
				store.Put(fmt.Sprintf("other/%d", i), "")
			}
			time.Sleep(7 * time.Minute)
			if snap := sub.Latest(); ids(snap) != "old" {
				t.Errorf("got %s, want what the backup had", describe(snap))
			}
		})
	})
}

// P6: an empty service is an answer, at once and live.
func TestP6EmptyIsAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		store.Put("svc-other/a", `{"Addr":"a:1"}`)
		sub := subscribe(t, d, "svc")
		began := time.Now()
		if snap := next(t, sub); snap.Len() != 0 || snap.Staleness() != nil || time.Since(began) > time.Second {
			t.Errorf("got %s after %v, want nothing at once", describe(snap), time.Since(began))
		}
		store.Put("svc/a", `{"Addr":"a:1"}`)
		next(t, sub)
		store.Delete("svc/a")
		if snap := next(t, sub); snap.Len() != 0 || snap.Staleness() != nil {
			t.Errorf("got %s, want nothing", describe(snap))
		}
		synctest.Wait()
	})
}

// P9: Close joins in real time too, with many services, each of whose configs is followed by
// itself, and a Registrar.
func TestP9CloseJoinsManyServices(t *testing.T) {
	const services = 500
	store := fakeetcd.New()
	defer store.Close()
	conn := store.Connect(context.Background())
	defer conn.Close()
	conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		if slices.Contains(call.Reads(), rollcall.ConfigPrefix) {
			return rpctypes.ErrGRPCPermissionDenied
		}
		return nil
	})
	d := directory(t, conn)
	r, err := rollcall.NewRegistrar(d, rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Register("svc-0", rollcall.Endpoint{Addr: "10.0.0.1:50051"}); err != nil {
		t.Fatal(err)
	}
	for i := range services {
		service := fmt.Sprintf("svc-%d", i)
		deliver(t, d, service, func(*rollcall.Snapshot, error) {})
		if err := followConfig(d, service); err != nil {
			t.Fatal(err)
		}
	}
	for conn.Watches() < 2*services {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	d.Close()
	if took := time.Since(began); took > 3*time.Second { // less than any time-out that it could wait for; the machine may be busy
		t.Errorf("Close took %v", took)
	}
}
