// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestListAndWatch(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "p/b", "q/c")
		_, s := e.follow("p/", Options{})
		e.same(s, "p/")
		if s.at != (Version{e.store.Revision(), 1}) {
			e.Errorf("listed at %v, want revision %d of epoch 1", s.at, e.store.Revision())
		}
		sleep(1)
		e.put("p/new", "q/other")
		e.same(s, "p/")
		sleep(1)
		e.put("p/a")
		e.same(s, "p/")
		sleep(1)
		e.store.Delete("p/b")
		e.same(s, "p/")
		if s.at.Revision != e.store.Revision() || s.publishes != 3 {
			e.Errorf("%d times published, last at revision %d, want 3 and %d", s.publishes, s.at.Revision, e.store.Revision())
		}
		if got, want := e.group.Counters(), (Counters{Lists: 1, Watches: 1, ListsBy: Causes{Start: 1}}); got != want {
			e.Errorf("got %+v, want %+v", got, want)
		}
		if len(s.statuses) != 1 {
			e.Errorf("statuses %v, want live from the start", s.statuses)
		}
	})
}

// A burst is folded into a few publications, and none of its events is lost.
func TestBurst(t *testing.T) {
	for _, row := range []struct {
		work        time.Duration
		least, most int
	}{{0, 1000, 1000}, {time.Millisecond, 20, 30}, {20 * time.Millisecond, 5, 12}} {
		bubble(t, func(e *env) {
			_, s := e.follow("p/", Options{})
			sleep(1)
			s.onPublish = func() { time.Sleep(row.work) }
			for i := range 1000 {
				e.put(fmt.Sprint("p/", i%50))
				time.Sleep(time.Millisecond)
			}
			sleep(1)
			e.same(s, "p/")
			if s.publishes < row.least || s.publishes > row.most {
				e.Errorf("%d publications of %v in a second of events, want %d to %d", s.publishes, row.work, row.least, row.most)
			}
		})
	}
}

// What was applied and not published when a watch ends is published all the same.
func TestUnpublishedAtTheEndOfAWatch(t *testing.T) {
	faults := map[string]func(*env){
		"ended by the server": func(e *env) { e.conn.CloseWatches() },
		"lost its leader":     func(e *env) { e.conn.LoseLeader(); time.AfterFunc(20*time.Second, e.conn.FindLeader) },
		"refused the token":   func(e *env) { e.conn.CancelWatches(rpctypes.ErrInvalidAuthToken) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(e *env) {
				_, s := e.follow("p/", Options{})
				sleep(1)
				e.put("p/a")
				time.Sleep(time.Millisecond)
				e.put("p/b") // folded
				time.Sleep(time.Millisecond)
				fault(e)
				sleep(0.05)
				s.mu.Lock()
				n := len(s.published)
				s.mu.Unlock()
				if n != 2 {
					e.Errorf("%d keys, want 2", n)
				}
				e.put("p/c")
				sleep(30)
				e.same(s, "p/")
				if lists := e.group.Counters().Lists; lists != 1 {
					e.Errorf("%d lists, want none after the first", lists)
				}
			})
		})
	}
}

func TestCompaction(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/gone", "p/a")
		_, s := e.follow("p/", Options{})
		sleep(1)
		e.conn.Cut()
		e.store.Delete("p/gone")
		e.put("p/a", "p/b")
		if err := e.store.Compact(e.store.Revision()); err != nil {
			e.Fatal(err)
		}
		e.conn.Mend()
		sleep(10)
		e.same(s, "p/")
		if got := e.group.Counters(); got.Lists != 2 || s.at.Epoch != 1 {
			e.Errorf("%+v, epoch %d, want two lists of one epoch", got, s.at.Epoch)
		}
	})
}

func TestNewEpoch(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "p/b", "p/c")
		_, s := e.follow("p/", Options{})
		sleep(1)
		e.store.Wipe()
		e.put("p/d")
		sleep(20) // the watch resumes silently; its stream is probed after 10 s
		e.same(s, "p/")
		if s.at.Epoch != 2 {
			e.Errorf("epoch %d, want 2", s.at.Epoch)
		}
	})
}

// A range that may not be read keeps its content, is stale for that, and is asked for until
// it may be read again.
func TestRefusal(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a")
		_, s := e.follow("p/", Options{})
		sleep(1)
		refuse := func(err error) {
			e.conn.Fail(fakeetcd.Get, err)
			e.conn.Fail(fakeetcd.Watch, err)
		}
		refuse(rpctypes.ErrPermissionDenied)
		e.conn.CancelWatches(rpctypes.ErrPermissionDenied)
		e.put("p/b")
		sleep(10)
		if err := s.status(); !errors.Is(err, rpctypes.ErrPermissionDenied) || len(s.published) != 1 {
			e.Errorf("stale: %v, content %v, want what was known before the refusal", err, s.published)
		}
		if status, _ := e.group.Monitor().Status(); status.Outage != nil {
			e.Errorf("a refusal was taken for an outage: %v", status.Outage.Cause)
		}
		refuse(nil)
		sleep(6)
		e.same(s, "p/")
		for _, err := range s.statuses[1 : len(s.statuses)-1] {
			if !errors.Is(err, rpctypes.ErrPermissionDenied) {
				e.Errorf("statuses %v, want live, refused, live", s.statuses)
			}
		}
	})
}

// Optional ranges that may not be read are tried again every 5 min only, and not logged.
func TestOptional(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
		_, s := e.follow("p/", Options{Optional: true})
		sleep(100)
		if n := e.group.Counters().Lists; n != 1 {
			e.Errorf("%d lists within 100 s, want 1", n)
		}
		sleep(50 * 60)
		if n := e.group.Counters().Lists; n < 7 || n > 20 {
			e.Errorf("%d lists within 50 min, want about 10", n)
		}
		e.conn.Fail(fakeetcd.Get, nil)
		sleep(8 * 60)
		e.same(s, "p/")
		if got := e.logged(); got != "" {
			e.Errorf("logged:\n%s", got)
		}
	})
}

func TestStaleListWithoutLeader(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		bubble(t, func(e *env) {
			e.put("p/a")
			e.conn.LoseLeader()
			e.put("p/b")
			s := &mapStore{t: e.TB, stale: errStarting, refuse: refuse}
			_, stop := e.group.Start(etcdkv.Prefix("p/"), s, Options{CheckPeriod: time.Hour})
			e.stops = append(e.stops, stop)
			sleep(20)
			err := s.status()
			if !errors.Is(err, rpctypes.ErrNoLeader) || strings.Contains(err.Error(), "member is behind") != refuse {
				e.Errorf("refused %t: stale: %v", refuse, err)
			}
			if taken := len(s.published) == 1; taken == refuse {
				e.Errorf("refused %t: content %v", refuse, s.published)
			}
			if n := e.group.Counters().Lists; n > 3 {
				e.Errorf("%d lists within 20 s, want the member asked once", n)
			}
			e.conn.FindLeader()
			sleep(10)
			e.same(s, "p/")
		})
	}
}

// A member that is behind what was seen is not believed.
func TestMemberBehind(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a")
		_, seen := e.follow("q/", Options{})
		sleep(1)
		e.put("q/x", "q/y")
		sleep(1)
		e.same(seen, "q/")
		e.conn.Lag(2)
		e.conn.LoseLeader()
		_, s := e.follow("p/", Options{})
		sleep(20)
		if err := s.status(); !errors.Is(err, rpctypes.ErrNoLeader) || !strings.Contains(err.Error(), "member is behind") || s.lists > 0 {
			e.Errorf("stale: %v, %d lists taken", err, s.lists)
		}
		e.conn.FindLeader()
		sleep(10)
		e.same(s, "p/")
	})
}

func TestClientClosed(t *testing.T) {
	for _, state := range []string{"live", "cut", "refused", "without a leader"} {
		t.Run(state, func(t *testing.T) {
			bubble(t, func(e *env) {
				e.put("p/a")
				_, s := e.follow("p/", Options{})
				sleep(1)
				switch state {
				case "cut":
					e.conn.Cut()
				case "refused":
					e.conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
					e.conn.CancelWatches(rpctypes.ErrPermissionDenied)
				case "without a leader":
					e.conn.LoseLeader()
				}
				sleep(30)
				e.conn.Close()
				sleep(1)
				if err := s.status(); !errors.Is(err, etcdkv.ErrClientClosed) || len(s.published) != 1 {
					e.Errorf("stale: %v, content %v", err, s.published)
				}
			})
		})
	}
}

// The stop that Start returns joins the Reflector, whatever it is doing; the mapStore
// complains of calls after it. The monitor ends with the last one.
func TestStop(t *testing.T) {
	for _, state := range []string{"live", "opening", "checking", "backing off", "refused", "outage"} {
		t.Run(state, func(t *testing.T) {
			bubble(t, func(e *env) {
				e.put("p/a")
				r, s := e.follow("p/", Options{})
				if state == "opening" {
					e.conn.Freeze()
				}
				sleep(1)
				switch state {
				case "checking":
					s.spoil(func(content map[string]mapEntry) { clear(content) })
					r.Verify()
					sleep(1)
				case "backing off":
					e.conn.Fail(fakeetcd.Get, errors.New("broken"))
					e.conn.CancelWatches(rpctypes.ErrCompacted)
				case "refused":
					e.conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
					e.conn.CancelWatches(rpctypes.ErrPermissionDenied)
				case "outage":
					e.conn.Cut()
					sleep(60)
				}
				began := time.Now()
				e.stops[0]()
				if took := time.Since(began); took != 0 {
					e.Errorf("stop took %v", took)
				}
				e.stops = nil
				e.conn.Mend()
				e.put("p/late")
				sleep(60)
				if n := e.store.Watches(); n != 0 {
					e.Errorf("%d watches are left", n)
				}
				if e.group.stopMonitor != nil {
					e.Error("the monitor still runs")
				}
			})
		})
	}
}

// A Group whose last Reflector was stopped starts another one.
func TestStartAgain(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a")
		_, s := e.follow("p/", Options{})
		e.same(s, "p/")
		e.stops[0]()
		e.stops = nil
		sleep(3600)
		e.put("p/b")
		_, s = e.follow("p/", Options{})
		e.same(s, "p/")
		sleep(60)
		if len(s.statuses) != 1 {
			e.Errorf("statuses %v, want live from the start", s.statuses)
		}
	})
}

func TestGroupList(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "p/b", "q/c")
		s := &mapStore{t: e.TB, stale: errStarting}
		var list List
		newList := func() Adder {
			list = s.NewList()
			return list
		}
		at, err := e.group.List(e.Context(), etcdkv.Prefix("p/"), newList)
		if err != nil || at.Revision != e.store.Revision() || len(list.(*mapList).keys) != 2 {
			e.Errorf("got %v at %v, %v", list, at, err)
		}
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
		if _, err := e.group.List(e.Context(), etcdkv.Prefix("p/"), newList); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			e.Errorf("got %v, want the refusal", err)
		}
	})
}

// Silence is the time since the last answer to a list.
func TestSilence(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Cut()
		r, _ := e.follow("p/", Options{})
		sleep(3)
		if got := r.Silence(); got != 3*time.Second {
			e.Errorf("got %v, want 3s", got)
		}
		e.conn.Mend()
		sleep(0.5)
		if got := r.Silence(); got > 500*time.Millisecond {
			e.Errorf("got %v after an answer", got)
		}
	})
}

// A stream keeps the token that it was opened with: where that is refused it is replaced.
func TestRefusedTokenReplacesTheStream(t *testing.T) {
	bubble(t, func(e *env) {
		_, s := e.follow("p/", Options{})
		sleep(2)
		generation := func() uint64 {
			w := e.group.Monitor().Watch(etcdkv.SingleKey("p/"), 0)
			defer w.Close()
			return w.Generation()
		}
		before := generation()
		e.conn.CancelWatches(rpctypes.ErrInvalidAuthToken)
		sleep(2)
		if after := generation(); after != before+1 {
			e.Errorf("generation %d, want %d", after, before+1)
		}
		e.put("p/a")
		e.same(s, "p/")
	})
}
