// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// More subscriptions than keep their goroutines are told of a change each time, after a rest
// as well; a Close waits for the call under way, the Directory's too.
func TestDeliver(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = 8
		d := directory(t, conn)
		put := func(key string) {
			if _, err := conn.Client.Put(context.Background(), key, `{"Addr":"a:1"}`); err != nil {
				t.Fatal(err)
			}
		}
		put("svc/a")
		var told [n]atomic.Int64 // instances seen last
		var under, late atomic.Int64
		var closed atomic.Bool
		subs := make([]*rollcall.Delivery, n)
		for i := range subs {
			subs[i] = deliver(t, d, "svc", func(snap *rollcall.Snapshot, err error) {
				under.Add(1)
				defer under.Add(-1)
				if closed.Load() {
					late.Add(1)
				}
				time.Sleep(time.Duration(i+1) * time.Millisecond)
				if err == nil {
					told[i].Store(int64(snap.Len()))
				}
			})
		}
		for want, key := range []string{"", "svc/b", "svc/c"} {
			if key != "" {
				put(key)
			}
			time.Sleep(10 * time.Second)
			for i := range told {
				if got := told[i].Load(); got != int64(want+1) {
					t.Errorf("subscription %d was told of %d instances, want %d", i, got, want+1)
				}
			}
		}
		put("svc/d")
		synctest.Wait() // in the middle of the calls
		if under.Load() == 0 {
			t.Fatal("nobody is being told")
		}
		subs[0].Close()
		d.Close()
		if n := under.Load(); n != 0 {
			t.Errorf("%d calls outlive the Directory's Close", n)
		}
		closed.Store(true)
		for _, s := range subs {
			s.Close()
		}
		time.Sleep(time.Minute)
		if n := late.Load(); n != 0 {
			t.Errorf("%d calls after Close", n)
		}
	})
}

// While etcd does not answer, each of many subscriptions hears so, once; when it does, each
// gets the snapshot.
func TestDeliverReasons(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = 8
		answers := make(chan struct{})
		conn.SetHook(func(ctx context.Context, _ fakeetcd.Call) error {
			select {
			case <-answers:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		d := directory(t, conn)
		defer d.Close()
		var heard, told [n]atomic.Int64
		for i := range n {
			deliver(t, d, "svc", func(_ *rollcall.Snapshot, err error) {
				if err == nil {
					told[i].Add(1)
				} else if !errors.Is(err, rollcall.ErrNoAnswer) {
					t.Errorf("subscription %d: %v", i, err)
				} else {
					heard[i].Add(1)
				}
			})
		}
		time.Sleep(3 * time.Second)
		for i := range n {
			if heard[i].Load() != 1 {
				t.Errorf("subscription %d heard %d reasons, want one", i, heard[i].Load())
			}
		}
		close(answers)
		time.Sleep(time.Minute)
		for i := range n {
			if told[i].Load() == 0 {
				t.Errorf("subscription %d was told of no snapshot", i)
			}
		}
	})
}

// The time between the first delivery and a change is not taken for work, after which the
// change would have to wait.
func TestDeliverAfterRest(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		for range 8 { // so that none keeps a goroutine
			next(t, subscribe(t, d, "svc"))
		}
		told := make(chan time.Time, 1)
		deliver(t, d, "svc", func(*rollcall.Snapshot, error) { told <- time.Now() })
		<-told
		time.Sleep(time.Hour)
		put := time.Now()
		if _, err := conn.Client.Put(context.Background(), "svc/a", `{"Addr":"a:1"}`); err != nil {
			t.Fatal(err)
		}
		if late := (<-told).Sub(put); late > 100*time.Millisecond {
			t.Errorf("the change was told of %v after it was put", late)
		}
	})
}

// A delivery that does not end keeps none of many others waiting.
func TestDeliverStuck(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		const n = 8
		release := make(chan struct{})
		defer close(release)
		var told [n]atomic.Int64
		for i := range n {
			deliver(t, d, "svc", func(snap *rollcall.Snapshot, _ error) {
				if told[i].Store(snap.Revision()); i%3 == 0 && snap.Len() > 0 {
					<-release
				}
			})
		}
		time.Sleep(10 * time.Second)
		for _, key := range []string{"svc/a", "svc/b"} {
			resp, err := conn.Client.Put(context.Background(), key, `{"Addr":"a:1"}`)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			for i := range n {
				if told[i].Load() < resp.Header.Revision && (i%3 != 0 || key == "svc/a") {
					t.Errorf("subscription %d was not told of %s", i, key)
				}
			}
		}
	})
}
