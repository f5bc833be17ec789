// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

const denied = `etcd="" services=%d first=p/0/ cause="etcdserver: permission denied"`

// Ranges that may not be read are one line for all, one a minute while that lasts, and one
// when it is over.
func TestDenialsAreLogged(t *testing.T) {
	bubble(t, func(e *env) {
		e.failLists(rpctypes.ErrPermissionDenied)
		for i := range 5 {
			e.follow(fmt.Sprintf("p/%d/", i), Options{})
		}
		e.follow("optional/", Options{Optional: true})
		s := &mapStore{t: e.TB, stale: errStarting}
		_, stop := e.group.Start(etcdkv.SingleKey("single"), s, Options{CheckPeriod: 1 << 60})
		e.stops = append(e.stops, stop)
		want := func(when, line string) {
			e.Helper()
			if got := e.logged(); got != line {
				e.Errorf("%s:\ngot  %s\nwant %s", when, got, line)
			}
		}
		sleep(0.9)
		want("within the first second", "")
		sleep(0.2)
		want("after a second", `level=WARN msg="etcd refuses access to services; keeping what is known of them" `+fmt.Sprintf(denied, 5))
		sleep(59)
		want("within a minute", "")
		sleep(1)
		want("after a minute", `level=WARN msg="etcd still refuses access to services; serving what is known of them" `+fmt.Sprintf(denied, 5)+" for=1m1s")
		e.failLists(nil)
		sleep(30)
		e.take(`level=INFO msg="etcd grants access to services again" etcd="" after=1m`)
		sleep(300)
		want("later", "")
	})
}

// failLists has lists fail, those that are begun together as well.
func (e *env) failLists(err error) {
	e.conn.Fail(fakeetcd.Get, err)
	e.conn.Fail(fakeetcd.Txn, err)
}

// take checks the beginning of the one line that was logged.
func (e *env) take(prefix string) {
	e.Helper()
	if got := e.logged(); len(got) < len(prefix) || got[:len(prefix)] != prefix {
		e.Errorf("got  %s\nwant %s...", got, prefix)
	}
}

// A refusal that passes within the first second is not logged, nor is its end.
func TestShortDenial(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.FailNext(fakeetcd.Get, rpctypes.ErrPermissionDenied)
		_, s := e.follow("p/", Options{})
		sleep(60)
		e.same(s, "p/")
		if got := e.logged(); got != "" {
			e.Errorf("logged:\n%s", got)
		}
	})
}

// A grant to one has the others look soon, however many they are.
func TestGrantIsShared(t *testing.T) {
	bubble(t, func(e *env) {
		const n = 100
		e.failLists(rpctypes.ErrPermissionDenied)
		var stores []*mapStore
		for i := range n {
			_, s := e.follow(fmt.Sprintf("p/%d/", i), Options{})
			stores = append(stores, s)
		}
		sleep(120)
		lists := e.group.Counters().Lists
		sleep(60)
		if got := e.group.Counters().Lists - lists; got < 120 || got > 480 {
			e.Errorf("%d lists in a minute, want about one in 250 ms", got)
		}
		e.failLists(nil)
		sleep(5)
		for _, s := range stores {
			if s.status() != nil {
				e.Fatalf("5 s after the grant: %v", s.status())
			}
		}
	})
}
