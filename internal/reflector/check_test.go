// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// loseOne drops a key, as if its event had been missed.
func loseOne(content map[string]mapEntry) { delete(content, "p/a") }

// changeOne changes a value, which neither the number of keys nor a revision tells.
func changeOne(content map[string]mapEntry) {
	content["p/a"] = mapEntry{"wrong", content["p/a"].rev}
}

func TestPeriodicCheck(t *testing.T) {
	for name, spoil := range map[string]func(map[string]mapEntry){"lost": loseOne, "changed": changeOne} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(e *env) {
				e.put("p/a", "p/b")
				_, s := e.follow("p/", Options{CheckPeriod: time.Minute})
				sleep(1)
				s.spoil(spoil)
				sleep(60*0.75 - 2)
				if n := e.group.Counters().Lists; n != 1 {
					e.Errorf("%d lists before the first check is due", n)
				}
				sleep(60*0.5 + 5)
				e.same(s, "p/")
				if n := e.group.Counters().Inconsistencies; n != 1 {
					e.Errorf("%d inconsistencies, want 1", n)
				}
				if got := e.logged(); strings.Count(got, "\n") != 0 ||
					!strings.HasPrefix(got, `level=WARN msg="content differs from etcd; listing again" prefix=p/`) || !strings.Contains(got, `key \"p/a\"`) {
					e.Errorf("log:\n%s", got)
				}
			})
		})
	}
}

// A check that finds nothing changes nothing.
func TestCheckOfAGoodStore(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "p/b")
		_, s := e.follow("p/", Options{CheckPeriod: time.Minute})
		sleep(60*60 + 1)
		got := e.group.Counters()
		if got.Lists < 45 || got.Lists > 80 {
			e.Errorf("%d lists in an hour, want about 60", got.Lists)
		}
		if s.lists != 1 || len(s.statuses) != 1 || got.Inconsistencies != 0 || got.Watches != 1 {
			e.Errorf("%d lists taken, statuses %v, %+v", s.lists, s.statuses, got)
		}
	})
}

// Events that arrive while a check is made are no inconsistency.
func TestCheckWhileEventsArrive(t *testing.T) {
	bubble(t, func(e *env) {
		_, s := e.follow("p/", Options{CheckPeriod: 10 * time.Second})
		for i := range 2000 {
			e.put(fmt.Sprint("p/", i%7))
			sleep(0.1)
		}
		e.same(s, "p/")
		if got := e.group.Counters(); got.Inconsistencies != 0 || got.Lists < 10 {
			e.Errorf("%+v, want checks, and no inconsistency", got)
		}
	})
}

// Verify finds what was lost, within seconds and at most once in 10 s. It lists only where
// the number of keys or the newest revision differs.
func TestVerify(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "p/b")
		r, s := e.follow("p/", Options{})
		sleep(1)
		r.Verify()
		sleep(9)
		if n := e.group.Counters().Lists; n != 1 {
			e.Errorf("%d lists where nothing differs, want none after the first", n)
		}
		sleep(2)
		s.spoil(loseOne)
		r.Verify()
		sleep(4)
		e.same(s, "p/")
		s.spoil(loseOne)
		lists := e.group.Counters().Lists
		for range 5 {
			r.Verify()
			sleep(1)
		}
		if n := e.group.Counters().Lists; n != lists {
			e.Errorf("%d lists within 10 s of a check", n-lists)
		}
		sleep(2)
		r.Verify()
		sleep(4)
		e.same(s, "p/")
		if n := e.group.Counters().Inconsistencies; n != 2 {
			e.Errorf("%d inconsistencies, want 2", n)
		}
	})
}

// A periodic check that fails is done again after 30 s, however long the period is, and is
// no reason to distrust the content.
func TestCheckFails(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a")
		_, s := e.follow("p/", Options{CheckPeriod: time.Hour})
		sleep(1)
		s.spoil(changeOne)
		e.conn.Fail(fakeetcd.Get, fmt.Errorf("broken"))
		sleep(75*60 + 5)
		if s.status() != nil {
			e.Errorf("stale: %v", s.status())
		}
		e.conn.Fail(fakeetcd.Get, nil)
		sleep(40)
		e.same(s, "p/")
	})
}

func TestCheckPause(t *testing.T) {
	for _, row := range []struct {
		keys  int
		every time.Duration
		want  time.Duration
	}{
		{0, time.Minute, time.Minute},
		{1_000, time.Minute, time.Minute},
		{10_000, time.Minute, 10 * time.Minute},
		{10_000, backoff.Never, backoff.Never},
	} {
		s := &mapStore{t: t, published: make(map[string]mapEntry)}
		for i := range row.keys {
			s.published[fmt.Sprint(i)] = mapEntry{}
		}
		r := &Reflector{store: s, opts: Options{CheckPeriod: row.every}}
		for range 100 {
			if got := r.checkPause(); row.want == backoff.Never && got != row.want ||
				row.want != backoff.Never && (got < row.want*3/4 || got > row.want*5/4) {
				t.Errorf("%d keys, every %v: %v, want about %v", row.keys, row.every, got, row.want)
			}
		}
	}
}
