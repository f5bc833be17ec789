// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// held starts two Reflectors while the Group is held, on ranges of two keys and of one, whose
// calls take 10 ms.
func (e *env) held(fail func(fakeetcd.Call) error) (p, q *mapStore) {
	e.put("p/a", "p/b", "q/a")
	e.conn.SetHook(slow(fail))
	release := e.group.Hold()
	_, p = e.follow("p/", Options{})
	_, q = e.follow("q/", Options{Optional: true})
	synctest.Wait()
	if n := e.conn.Calls(fakeetcd.Get) + e.conn.Calls(fakeetcd.Txn); n > 0 {
		e.Errorf("%d calls before the release", n)
	}
	release()
	return p, q
}

// The first lists of Reflectors that are started together are one request, and if etcd refuses
// that, one more each.
func TestHeldListsBeginTogether(t *testing.T) {
	for _, row := range []struct {
		name     string
		password bool
		refused  string // a range that may not be read
		gets     int
	}{
		{"all is well", false, "", 0},
		{"with a password", true, "", 0},
		{"one may not be read", false, "q/", 2},
		{"one may not be read, with a password", true, "q/", 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(e *env) {
				e.group.lister.limiter.password = row.password
				p, q := e.held(func(call fakeetcd.Call) error {
					if slices.Contains(call.Reads(), row.refused) {
						return rpctypes.ErrGRPCPermissionDenied
					}
					return nil
				})
				time.Sleep(100 * time.Millisecond)
				e.same(p, "p/")
				if row.refused == "" {
					e.same(q, "q/")
				}
				if txns, gets := e.conn.Calls(fakeetcd.Txn), e.conn.Calls(fakeetcd.Get); txns != 1 || gets != row.gets {
					e.Errorf("%d transactions and %d ranges, want 1 and %d", txns, gets, row.gets)
				}
				_, later := e.follow("p/a", Options{})
				time.Sleep(100 * time.Millisecond)
				e.same(later, "p/a")
				if txns, gets := e.conn.Calls(fakeetcd.Txn), e.conn.Calls(fakeetcd.Get); txns != 1 || gets != row.gets+1 {
					e.Errorf("after another one: %d transactions and %d ranges, want 1 and %d", txns, gets, row.gets+1)
				}
			})
		})
	}
}

// Whoever of those started together is stopped, and whenever, the other one lists its range, and
// no turn stays behind.
func TestHeldListStopped(t *testing.T) {
	for _, when := range []string{"before the release", "during the request"} {
		for _, who := range []int{0, 1} {
			t.Run(when, func(t *testing.T) {
				bubble(t, func(e *env) {
					e.put("p/a", "p/b")
					e.conn.SetHook(slow(nil))
					release := e.group.Hold()
					var stores [2]*mapStore
					var stops [2]func()
					for i := range stores {
						stores[i] = &mapStore{t: e.TB, stale: errStarting, applied: make(map[string]mapEntry)}
						_, stops[i] = e.group.Start(etcdkv.Prefix("p/"), stores[i], Options{CheckPeriod: 1 << 60})
					}
					if when == "before the release" {
						stops[who]()
						release()
					} else {
						release()
						time.Sleep(5 * time.Millisecond)
						stops[who]()
					}
					time.Sleep(time.Second)
					e.same(stores[1-who], "p/")
					stops[1-who]()
					if l := e.group.lister.limiter; l.active != 0 || len(l.queue) != 0 {
						e.Errorf("%d under way and %d in the queue", l.active, len(l.queue))
					}
				})
			})
		}
	}
}

// One that is stopped before it has asked leaves no turn behind.
func TestHeldListNeverAsked(t *testing.T) {
	bubble(t, func(e *env) {
		defer e.group.Hold()()
		r := newReflector(e.group, etcdkv.Prefix("p/"), &mapStore{t: e.TB}, Options{CheckPeriod: 1 << 60})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r.run(ctx)
		if n := len(e.group.lister.limiter.queue); n > 0 {
			e.Errorf("%d turns are left", n)
		}
	})
}

// P4: Reflectors that are started together during an outage ask nothing, and leave no turn that
// others could begin with, or that would be old when it is over.
func TestHeldDuringAnOutage(t *testing.T) {
	bubble(t, func(e *env) {
		var asked atomic.Bool
		_, before := e.follow("before/", Options{})
		synctest.Wait()
		e.same(before, "before/")
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrGRPCTimeout)
		e.group.monitor.Recheck(context.Background())
		e.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if slices.ContainsFunc(call.Reads(), func(key string) bool { return key == "p/" || key == "q/" }) {
				asked.Store(true)
			}
			return nil
		})
		if status, _ := e.group.monitor.Status(); status.Outage == nil {
			t.Fatal("no outage")
		}
		release := e.group.Hold()
		_, p := e.follow("p/", Options{})
		_, q := e.follow("q/", Options{})
		synctest.Wait()
		if n := len(e.group.lister.limiter.queue); n > 0 {
			e.Errorf("%d turns are left", n)
		}
		release()
		time.Sleep(time.Minute)
		if asked.Load() {
			e.Error("they asked etcd during the outage")
		}
		e.conn.Fail(fakeetcd.Get, nil)
		time.Sleep(time.Minute)
		e.same(p, "p/")
		e.same(q, "q/")
	})
}

// An answer is compared with the floor from before it was asked for, however late it is read: what
// others have seen meanwhile makes it no answer of a new epoch.
func TestFloorOfAListBegunTogether(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "q/a")
		l := e.group.lister
		p, q := etcdkv.Prefix("p/"), etcdkv.Prefix("q/")
		first, second := l.limiter.reserve(&p), l.limiter.reserve(&q)
		if err := l.admit(context.Background(), false, first); err != nil {
			t.Fatal(err)
		}
		l.begin(context.Background(), first)
		e.group.monitor.ObserveRevision(1000, 1)
		at, err := l.list(context.Background(), query{keys: q, turn: second, newList: func() Adder { return &mapList{keys: make(map[string]mapEntry)} }})
		if err != nil || at.floor.Revision != 0 || at.floor.Epoch != 1 || at.Revision != e.store.Revision() {
			t.Errorf("got %+v, %v", at, err)
		}
	})
}
