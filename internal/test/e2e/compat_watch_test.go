// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

func watchChecks() []check {
	return []check{
		{name: "the first message holds what is there", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("b"), "b:1")
			e.Add(m, e.Key("a"), "a:1")
			e.Put(e.Key("c"), "not JSON")
			e.Same("first message", values(e.Watch(m).Next()), []endpoints.Update{
				{Op: endpoints.Add, Key: e.Key("a"), Endpoint: endpoints.Endpoint{Addr: "a:1"}},
				{Op: endpoints.Add, Key: e.Key("b"), Endpoint: endpoints.Endpoint{Addr: "b:1"}},
			})
		}},
		{name: "an empty target sends nothing until an endpoint joins", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			w := e.Watch(m)
			e.OK(m.AddEndpoint(e.Ctx, e.Key("a"), endpoints.Endpoint{Addr: "a:1", Metadata: "m"}))
			e.Same("first message", values(w.Next()), []endpoints.Update{
				{Op: endpoints.Add, Key: e.Key("a"), Endpoint: endpoints.Endpoint{Addr: "a:1", Metadata: "m"}}})
		}},
		{name: "a transaction is one message", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("old"), "old:1")
			w := e.Watch(m)
			w.Next()
			e.OK(m.Update(e.Ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "a:1"}),
				endpoints.NewAddUpdateOpts(e.Key("b"), endpoints.Endpoint{Addr: "b:1"}),
				endpoints.NewDeleteUpdateOpts(e.Key("old")),
			}))
			if n := len(w.Next()); n != 3 {
				e.Failf("%d updates in the message, want 3", n)
			}
			e.Same("watch", w.Set, map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:1"})
		}},
		{name: "a deletion has a key and no endpoint", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("a"), "a:1")
			w := e.Watch(m)
			w.Next()
			e.OK(m.DeleteEndpoint(e.Ctx, e.Key("a")))
			e.Same("message", values(w.Next()), []endpoints.Update{{Op: endpoints.Delete, Key: e.Key("a")}})
		}},
		{name: "writing the same value again is a message", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("a"), "a:1")
			w := e.Watch(m)
			w.Next()
			e.Add(m, e.Key("a"), "a:1")
			e.Same("message", values(w.Next()), []endpoints.Update{
				{Op: endpoints.Add, Key: e.Key("a"), Endpoint: endpoints.Endpoint{Addr: "a:1"}}})
		}},
		{name: "the channel closes with its context", mark: both, run: func(e *lab.Env) {
			ctx, cancel := context.WithCancel(e.Ctx)
			ch, err := e.Manager().NewWatchChannel(ctx)
			e.OK(err)
			cancel()
			for {
				select {
				case _, ok := <-ch:
					if !ok {
						return
					}
				case <-e.Ctx.Done():
					e.Failf("the channel stays open")
				}
			}
		}},
		{name: "the channel closes with its client", mark: both, run: func(e *lab.Env) {
			client := e.ClientAt(e.Etcd.Endpoints()...)
			w := e.Watch(e.ManagerOf(client, e.Target))
			e.Add(e.Manager(), e.Key("a"), "a:1")
			w.Next()
			client.Close()
			for {
				select {
				case _, ok := <-w.Ch:
					if !ok {
						return
					}
				case <-e.Ctx.Done():
					e.Failf("the channel stays open")
				}
			}
		}},
		{name: "two watches of a target both see everything", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			one, two := e.Watch(m), e.Watch(e.Manager())
			want := make(map[string]string)
			for i := range 20 {
				e.Add(m, e.Key(fmt.Sprint(i)), "a:1")
				want[e.Key(fmt.Sprint(i))] = "a:1"
			}
			one.Becomes(want)
			two.Becomes(want)
		}},
		{name: "a slow reader gets the last state", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			w := e.Watch(m)
			for i := range 50 {
				e.Add(m, e.Key("a"), fmt.Sprintf("a:%d", i+1))
			}
			w.Becomes(map[string]string{e.Key("a"): "a:50"})
		}},
		{name: "the watch goes on after etcd restarts", mark: both, members: 1, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("a"), "a:1")
			w := e.Watch(m)
			w.Next()
			e.Etcd.Member(0).Kill()
			e.Etcd.Member(0).Start()
			e.Etcd.WaitReady()
			e.Add(m, e.Key("b"), "b:1")
			w.Becomes(map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:1"})
		}},

		{name: "every transaction is a message of its own", mark: theirs, difference: "Changes may be merged into one message", run: func(e *lab.Env) {
			m := e.Manager()
			w := e.Watch(m)
			e.Add(m, e.Key("a"), "a:0")
			w.Next()
			const writes = 10
			for i := range writes {
				e.Add(m, e.Key("a"), fmt.Sprintf("a:%d", i+1))
			}
			for i := range writes {
				e.Same("message", values(w.Next()), []endpoints.Update{
					{Op: endpoints.Add, Key: e.Key("a"), Endpoint: endpoints.Endpoint{Addr: fmt.Sprintf("a:%d", i+1)}}})
			}
		}},
		{name: "a message has the order of its transaction", mark: theirs, difference: "A message is sorted by key", run: func(e *lab.Env) {
			m := e.Manager()
			w := e.Watch(m)
			e.OK(m.Update(e.Ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts(e.Key("b"), endpoints.Endpoint{Addr: "b:1"}),
				endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "a:1"}),
			}))
			updates := w.Next()
			e.Same("keys", []string{updates[0].Key, updates[1].Key}, []string{e.Key("b"), e.Key("a")})
		}},
		{name: "a running watch keeps what garbage overwrote", mark: theirs, difference: "A bad overwrite is a deletion", run: func(e *lab.Env) {
			w := garbled(e)
			e.Same("watch", w.Set, map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:1"})
		}},
		{name: "a running watch and a fresh one agree after garbage", mark: ours, difference: "A bad overwrite is a deletion", run: func(e *lab.Env) {
			w := garbled(e)
			fresh := e.Watch(e.Manager())
			fresh.Next()
			e.Same("running watch", w.Set, fresh.Set)
		}},
		{name: "the watch goes on after a compaction while cut off", mark: ours, difference: "A watch ends with its context only", members: 1, run: func(e *lab.Env) {
			link, client := e.Linked()
			m := e.ManagerOf(client, e.Target)
			e.Add(m, e.Key("a"), "a:1")
			e.Add(m, e.Key("b"), "b:1")
			w := e.Watch(m)
			w.Becomes(map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:1"})
			link.Cut()
			e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("a")))
			e.Add(e.Manager(), e.Key("c"), "c:1")
			e.Compact()
			link.Mend()
			w.Becomes(map[string]string{e.Key("b"): "b:1", e.Key("c"): "c:1"})
			e.Add(e.Manager(), e.Key("d"), "d:1")
			w.Becomes(map[string]string{e.Key("b"): "b:1", e.Key("c"): "c:1", e.Key("d"): "d:1"})
		}},
		{name: "the watch goes on after etcd lost its data", mark: ours, members: 1, run: func(e *lab.Env) {
			m := e.Manager()
			for i := range 20 {
				e.Add(m, e.Key("a"), fmt.Sprintf("a:%d", i+1))
			}
			w := e.Watch(m)
			w.Next()
			e.Etcd.Member(0).Kill()
			e.Etcd.Member(0).Wipe()
			e.Etcd.Member(0).Start()
			e.Etcd.WaitReady()
			e.Add(m, e.Key("b"), "b:1")
			w.Becomes(map[string]string{e.Key("b"): "b:1"})
		}},
		{name: "watches require a leader", mark: ours, run: func(e *lab.Env) {
			log, client := e.Spy()
			w := e.Watch(e.ManagerOf(client, e.Target))
			e.Add(e.Manager(), e.Key("a"), "a:1")
			w.Next()
			if n := log.Seen().Leaderless; n > 0 {
				e.Failf("%d watch streams go on at a member without a leader", n)
			}
		}},
		{name: "managers and channels of a client share one watch", mark: ours, run: func(e *lab.Env) {
			log, client := e.Spy()
			for range 5 {
				e.Watch(e.ManagerOf(client, e.Target))
				e.ResolveBy(e.BuilderOf(client), e.Target)
			}
			e.Add(e.Manager(), e.Key("a"), "a:1")
			e.Shows(e.ResolveBy(e.BuilderOf(client), e.Target), "a:1")
			n := 0
			for _, w := range log.Seen().Watches {
				if string(w.Key) == e.Target+"/" && len(w.RangeEnd) > 0 {
					n++
				}
			}
			if n != 1 {
				e.Failf("%d watches were opened", n)
			}
		}},
	}
}

// values takes the pointers away, for comparing.
func values(updates []*endpoints.Update) []endpoints.Update {
	all := make([]endpoints.Update, len(updates))
	for i, u := range updates {
		all[i] = *u
	}
	return all
}

// garbled returns a watch that has seen an endpoint being overwritten by garbage.
func garbled(e *lab.Env) *lab.Watcher {
	m := e.Manager()
	e.Add(m, e.Key("a"), "a:1")
	w := e.Watch(m)
	w.Next()
	e.Put(e.Key("a"), "not JSON")
	e.Add(m, e.Key("b"), "b:1")
	for w.Set[e.Key("b")] == "" {
		w.Next()
	}
	return w
}
