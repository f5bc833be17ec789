// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// many follows services of 20 keys each, whose calls take 10 ms, so that lists have to wait
// for their turn.
func (e *env) many(services int) (stores []*mapStore) {
	for i := range services {
		for j := range 20 {
			e.put(fmt.Sprint(service(i), "key-", j))
		}
	}
	e.conn.SetHook(slow(nil))
	for i := range services {
		_, s := e.follow(service(i), Options{})
		stores = append(stores, s)
	}
	return stores
}

func service(i int) string { return fmt.Sprintf("svc-%03d/", i) }

// slow delays calls by 10 ms, and has fail say what becomes of them.
func slow(fail func(call fakeetcd.Call) error) func(context.Context, fakeetcd.Call) error {
	return func(ctx context.Context, call fakeetcd.Call) error {
		if call.Method == fakeetcd.Watch || call.Method == fakeetcd.WatchStream {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if fail == nil {
			return nil
		}
		return fail(call)
	}
}

// Lists that wait are begun together, each with its own content, and whatever etcd refuses of
// them, none is lost.
func TestListsBegunTogether(t *testing.T) {
	const services, large = 250, 7
	for _, row := range []struct {
		name   string
		fault  func(e *env)
		most   int // calls
		within time.Duration
	}{
		{"all is well", func(*env) {}, 2*maxLists + 3, time.Second},
		{"a server of 16 operations", func(e *env) { e.store.SetLimits(16, 1<<20) }, 300, time.Second},
		{"a server of two operations", func(e *env) { e.store.SetLimits(2, 1<<20) }, 300, time.Second},
		{"one may not be read", func(e *env) {
			e.conn.SetHook(slow(func(call fakeetcd.Call) error {
				if slices.Contains(call.Reads(), service(services-1)) {
					return rpctypes.ErrGRPCPermissionDenied
				}
				return nil
			}))
		}, 400, 500 * time.Millisecond},
		{"unavailable for a moment", func(e *env) {
			e.conn.FailNext(fakeetcd.Txn, rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCLeaderChanged)
		}, 400, 500 * time.Millisecond},
		{"too large an answer", func(e *env) {
			e.conn.Fail(fakeetcd.Txn, status.Error(codes.ResourceExhausted, "received message larger than max"))
		}, 400, 500 * time.Millisecond},
		{"answers fail together", func(e *env) { e.conn.FailNext(fakeetcd.Txn, rpctypes.ErrGRPCTimeout) }, 200, 3 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(e *env) {
				for i := range 2500 { // more than a first page
					e.put(fmt.Sprintf("%s%04d", service(large), i))
				}
				stores := e.many(services)
				row.fault(e)
				time.Sleep(row.within)
				for i, s := range stores {
					if row.name == "one may not be read" && i == services-1 {
						if err := s.status(); !errors.Is(err, rpctypes.ErrPermissionDenied) {
							e.Errorf("%s: status %v", service(i), err)
						}
						continue
					}
					e.same(s, service(i))
				}
				if calls := e.conn.Calls(fakeetcd.Get) + e.conn.Calls(fakeetcd.Txn); calls > row.most {
					e.Errorf("%d calls for %d lists, want at most %d", calls, services, row.most)
				}
			})
		})
	}
}

// A list that gives up does not take with it those that were begun with it.
func TestListBegunTogetherGivesUp(t *testing.T) {
	for _, who := range []string{"who has begun", "who was begun"} {
		t.Run(who, func(t *testing.T) {
			bubble(t, func(e *env) {
				e.put("p/a")
				e.conn.SetHook(slow(nil))
				for range maxLists { // no turn is left
					if err := e.group.lister.admit(context.Background(), false, e.group.lister.limiter.reserve(nil)); err != nil {
						t.Fatal(err)
					}
				}
				errs := make(map[string]error)
				list := func(ctx context.Context, name string) {
					_, errs[name] = e.group.lister.list(ctx, query{keys: etcdkv.Prefix("p/"), newList: func() Adder { return &mapList{keys: make(map[string]mapEntry)} }})
				}
				first, cancelFirst := context.WithCancel(context.Background())
				defer cancelFirst()
				second, cancelSecond := context.WithCancel(context.Background())
				defer cancelSecond()
				done := make(chan struct{}, 2)
				go func() { list(first, "first"); done <- struct{}{} }()
				synctest.Wait()
				go func() { list(second, "second"); done <- struct{}{} }()
				synctest.Wait()
				e.group.lister.limiter.leave(context.Background(), nil) // the first is admitted, and takes the second
				time.Sleep(5 * time.Millisecond)
				gone, stays := "first", "second"
				if who == "who has begun" {
					cancelFirst()
				} else {
					cancelSecond()
					gone, stays = stays, gone
				}
				began := time.Now()
				<-done
				if took := time.Since(began); took > 0 {
					e.Errorf("it took %v to give up", took)
				}
				e.group.lister.limiter.leave(context.Background(), nil)
				<-done
				if !errors.Is(errs[gone], context.Canceled) || errs[stays] != nil {
					e.Errorf("who gave up: %v, who stays: %v", errs[gone], errs[stays])
				}
			})
		})
	}
}

// A list that another one has begun ends with an outage, and with the cause of that.
func TestOutageDuringAListBegunTogether(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.SetHook(func(ctx context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Txn {
				<-ctx.Done()
			}
			return ctx.Err()
		})
		errs := make(chan error, 2)
		for range maxLists {
			if err := e.group.lister.admit(context.Background(), false, e.group.lister.limiter.reserve(nil)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			go func() {
				_, err := e.group.lister.list(context.Background(), query{keys: etcdkv.Prefix("p/"), newList: func() Adder { return &mapList{keys: make(map[string]mapEntry)} }})
				errs <- err
			}()
			synctest.Wait()
		}
		e.follow("other/", Options{}) // has the monitor run
		e.group.lister.limiter.leave(context.Background(), nil)
		time.Sleep(time.Second)
		e.conn.LoseLeader()
		e.group.monitor.Recheck(context.Background())
		synctest.Wait()
		if err := <-errs; !errors.Is(err, rpctypes.ErrNoLeader) {
			e.Errorf("got %v, want the cause of the outage", err)
		}
		<-errs
	})
}
