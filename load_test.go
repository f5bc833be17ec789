// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// asked returns what etcd was asked so far.
func asked(conn *fakeetcd.Conn) (total int) {
	for _, m := range []fakeetcd.Method{fakeetcd.Get, fakeetcd.GetStream, fakeetcd.Watch, fakeetcd.WatchStream} {
		total += conn.Calls(m)
	}
	return total
}

// lists returns how often etcd was asked for keys so far. Lists are streams first.
func lists(conn *fakeetcd.Conn) int {
	return conn.Calls(fakeetcd.Get) + conn.Calls(fakeetcd.GetStream)
}

func subscribeAll(t *testing.T, d *rollcall.Directory, services int) []*rollcall.Subscription {
	t.Helper()
	subs := make([]*rollcall.Subscription, services)
	for i := range subs {
		subs[i] = subscribe(t, d, fmt.Sprintf("svc-%d", i))
	}
	return subs
}

// W16: while there is no leader the connection asks for one, not each service.
func TestRetriesDoNotGrowWithServices(t *testing.T) {
	for _, services := range []int{1, 200} {
		for _, when := range []string{"running", "starting"} {
			t.Run(fmt.Sprint(when, " ", services), func(t *testing.T) {
				bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
					for i := range services {
						store.Put(fmt.Sprintf("svc-%d/a", i), `{"Addr":"a:1"}`)
					}
					d := directory(t, conn)
					defer d.Close()
					if when == "starting" {
						conn.LoseLeader()
					}
					subs := subscribeAll(t, d, services)
					synctest.Wait()
					before := asked(conn)
					conn.LoseLeader()
					time.Sleep(10 * time.Second)
					if n := asked(conn) - before; n > 20+5*services {
						t.Errorf("asked %d times in the first 10 s", n)
					}
					for i, sub := range subs {
						if snap := sub.Latest(); snap == nil || snap.Staleness() == nil || snap.Len() != 1 {
							t.Fatalf("service %d is not shown as stale: %v", i, snap)
						}
					}
					before = asked(conn)
					time.Sleep(5 * time.Minute)
					if n := asked(conn) - before; n > 200 {
						t.Errorf("asked %d times in 5 min", n)
					}
					conn.FindLeader()
					time.Sleep(6 * time.Second)
					for i, sub := range subs {
						if snap := sub.Latest(); snap.Staleness() != nil {
							t.Fatalf("service %d is stale: %v", i, snap.Staleness().Cause)
						}
					}
				})
			})
		}
	}
}

// A8: however many services may not be read, they are asked for a few times a second. Once
// one may, the others look soon.
func TestRefusalsAreBounded(t *testing.T) {
	for _, services := range []int{1, 10, 200} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				var granted atomic.Bool
				conn.SetHook(func(context.Context, fakeetcd.Call) error {
					if granted.Load() {
						return nil
					}
					return rpctypes.ErrGRPCPermissionDenied
				})
				d := directory(t, conn)
				defer d.Close()
				subs := subscribeAll(t, d, services)
				time.Sleep(time.Minute)
				before := lists(conn)
				time.Sleep(5 * time.Minute)
				if n := lists(conn) - before; n > 5*300 {
					t.Errorf("%d lists in 5 min", n)
				}
				if n := conn.Calls(fakeetcd.WatchStream); n != 0 {
					t.Errorf("%d streams were opened", n)
				}
				conn.Cut() // an outage makes no storm
				time.Sleep(5 * time.Minute)
				before = lists(conn)
				conn.Mend()
				time.Sleep(10 * time.Second)
				if n := lists(conn) - before; n > 8*10 {
					t.Errorf("%d lists in the 10 s after an outage", n)
				}
				granted.Store(true)
				time.Sleep(10 * time.Second)
				for i, sub := range subs {
					if sub.Latest() == nil {
						t.Fatalf("service %d may be read and is not: %v", i, sub.Err())
					}
				}
			})
		})
	}
}

// Service configs that may not be read keep no service waiting for a grant.
func TestRefusedConfigsDoNotCount(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		var granted atomic.Bool
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Key == "svc/" && granted.Load() {
				return nil
			}
			return rpctypes.ErrGRPCPermissionDenied
		})
		d := directory(t, conn)
		defer d.Close()
		for i := range 100 {
			if err := followConfig(d, fmt.Sprintf("svc-%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		sub := subscribe(t, d, "svc")
		time.Sleep(time.Minute)
		granted.Store(true)
		time.Sleep(6 * time.Second)
		if sub.Latest() == nil {
			t.Errorf("not followed 6 s after the grant: %v", sub.Err())
		}
	})
}

// A8: a client with a password sends its first list alone, and never many at once. Those that
// wait are begun together.
func TestListsPassAGate(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			conn.Client.Username, conn.Client.Password = "user", password
			var mu sync.Mutex
			waves, sent := make(map[time.Time]int), 0 // calls by when they were sent
			conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
				if call.Method == fakeetcd.Get && strings.HasPrefix(call.Key, "svc") || call.Method == fakeetcd.Txn {
					mu.Lock()
					waves[time.Now()]++
					sent++
					mu.Unlock()
					time.Sleep(10 * time.Millisecond)
				}
				return nil
			})
			d := directory(t, conn)
			defer d.Close()
			began := time.Now()
			subs := subscribeAll(t, d, 100)
			for _, sub := range subs {
				next(t, sub)
			}
			first, most := waves[began], 0
			for _, n := range waves {
				most = max(most, n)
			}
			want := 16
			if password != "" {
				want = 1
			}
			if first != want || most > 16 || sent > 32 {
				t.Errorf("password %q: %d calls at first, %d at most, %d together, want %d, 16 and 32", password, first, most, sent, want)
			}
		})
	}
}

// While etcd does not answer one list asks, and the others wait.
func TestOneListAsksForAll(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fail := func(err error) {
			conn.Fail(fakeetcd.Get, err)
			conn.Fail(fakeetcd.Txn, err)
		}
		asked := func() int { return conn.Calls(fakeetcd.Get) + conn.Calls(fakeetcd.Txn) }
		fail(rpctypes.ErrGRPCAuthFailed)
		d := directory(t, conn)
		defer d.Close()
		subs := subscribeAll(t, d, 100)
		time.Sleep(10 * time.Second)
		if n := asked(); n > 30 {
			t.Errorf("asked %d times in 10 s", n)
		}
		began := asked()
		time.Sleep(time.Minute)
		if n := asked() - began; n > 30 {
			t.Errorf("asked %d times in a minute", n)
		}
		for _, sub := range subs {
			if err := sub.Err(); err == nil || !strings.Contains(err.Error(), "authentication failed") {
				t.Fatalf("got %v", err)
			}
		}
		fail(nil)
		time.Sleep(6 * time.Second)
		for i, sub := range subs {
			if sub.Latest() == nil {
				t.Fatalf("service %d has no snapshot: %v", i, sub.Err())
			}
		}
	})
}

// When the connection turns bad in the middle of lists, those under way fail and one more at
// most: nothing is listed until the connection was checked, however long that takes.
func TestListsStopWhenTheConnectionFails(t *testing.T) {
	const width = 16
	for _, password := range []string{"", "secret"} {
		for _, check := range []time.Duration{10 * time.Millisecond, time.Second} {
			t.Run(fmt.Sprintf("password %q, a check takes %v", password, check), func(t *testing.T) {
				bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
					conn.Client.Username, conn.Client.Password = "user", password
					var listed atomic.Int64
					conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
						n := listed.Load()
						switch {
						case call.Method != fakeetcd.Get && call.Method != fakeetcd.GetStream:
							return nil
						case call.End == "":
							time.Sleep(check)
						default:
							time.Sleep(10 * time.Millisecond)
							n = listed.Add(1)
						}
						if n > 100 {
							return rpctypes.ErrGRPCTimeout
						}
						return nil
					})
					d := directory(t, conn)
					defer d.Close()
					subscribeAll(t, d, 500)
					time.Sleep(time.Minute)
					if failed := listed.Load() - 100; failed > width+1 {
						t.Errorf("%d lists failed", failed)
					}
				})
			})
		}
	}
}

// BenchmarkIdleServices is what a service that is followed and does not change costs: bytes of
// stacks and of heap, and goroutines.
func BenchmarkIdleServices(b *testing.B) {
	const services = 500
	store := fakeetcd.New()
	defer store.Close()
	for i := range services {
		for j := range 5 {
			store.Put(fmt.Sprintf("svc-%d/%d", i, j), `{"Op":0,"Addr":"10.0.0.1:50051","Metadata":{"weight":10,"zone":"eu-1"}}`)
		}
	}
	conn := store.Connect(context.Background())
	defer conn.Close()
	for b.Loop() {
		before := inUse()
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for i := range services {
			sub, err := d.Subscribe(fmt.Sprintf("svc-%d", i))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := sub.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		for conn.Watches() < services {
			time.Sleep(time.Millisecond)
		}
		after := inUse()
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/services, "stack-B/service")
		b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/services, "heap-B/service")
		d.Close()
	}
}

func inUse() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}
