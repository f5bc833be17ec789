// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/endpoints"
)

func watchChecks() []check {
	return []check{
		{name: "the first message holds what is there", mark: both, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("b"), "b:1")
			e.add(m, e.key("a"), "a:1")
			e.put(e.key("c"), "not JSON")
			e.same("first message", values(e.watch(m).next()), []endpoints.Update{
				{Op: endpoints.Add, Key: e.key("a"), Endpoint: endpoints.Endpoint{Addr: "a:1"}},
				{Op: endpoints.Add, Key: e.key("b"), Endpoint: endpoints.Endpoint{Addr: "b:1"}},
			})
		}},
		{name: "an empty target sends nothing until an endpoint joins", mark: both, run: func(e *env) {
			m := e.manager()
			w := e.watch(m)
			e.ok(m.AddEndpoint(e.ctx, e.key("a"), endpoints.Endpoint{Addr: "a:1", Metadata: "m"}))
			e.same("first message", values(w.next()), []endpoints.Update{
				{Op: endpoints.Add, Key: e.key("a"), Endpoint: endpoints.Endpoint{Addr: "a:1", Metadata: "m"}}})
		}},
		{name: "a transaction is one message", mark: both, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("old"), "old:1")
			w := e.watch(m)
			w.next()
			e.ok(m.Update(e.ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts(e.key("a"), endpoints.Endpoint{Addr: "a:1"}),
				endpoints.NewAddUpdateOpts(e.key("b"), endpoints.Endpoint{Addr: "b:1"}),
				endpoints.NewDeleteUpdateOpts(e.key("old")),
			}))
			if n := len(w.next()); n != 3 {
				e.failf("%d updates in the message, want 3", n)
			}
			e.same("watch", w.set, map[string]string{e.key("a"): "a:1", e.key("b"): "b:1"})
		}},
		{name: "a deletion has a key and no endpoint", mark: both, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("a"), "a:1")
			w := e.watch(m)
			w.next()
			e.ok(m.DeleteEndpoint(e.ctx, e.key("a")))
			e.same("message", values(w.next()), []endpoints.Update{{Op: endpoints.Delete, Key: e.key("a")}})
		}},
		{name: "writing the same value again is a message", mark: both, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("a"), "a:1")
			w := e.watch(m)
			w.next()
			e.add(m, e.key("a"), "a:1")
			e.same("message", values(w.next()), []endpoints.Update{
				{Op: endpoints.Add, Key: e.key("a"), Endpoint: endpoints.Endpoint{Addr: "a:1"}}})
		}},
		{name: "the channel closes with its context", mark: both, run: func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx)
			ch, err := e.manager().NewWatchChannel(ctx)
			e.ok(err)
			cancel()
			for {
				select {
				case _, ok := <-ch:
					if !ok {
						return
					}
				case <-e.ctx.Done():
					e.failf("the channel stays open")
				}
			}
		}},
		{name: "the channel closes with its client", mark: both, run: func(e *env) {
			client := e.clientAt(e.etcd.Endpoints()...)
			w := e.watch(e.managerOf(client, e.target))
			e.add(e.manager(), e.key("a"), "a:1")
			w.next()
			client.Close()
			for {
				select {
				case _, ok := <-w.ch:
					if !ok {
						return
					}
				case <-e.ctx.Done():
					e.failf("the channel stays open")
				}
			}
		}},
		{name: "two watches of a target both see everything", mark: both, run: func(e *env) {
			m := e.manager()
			one, two := e.watch(m), e.watch(e.manager())
			want := make(map[string]string)
			for i := range 20 {
				e.add(m, e.key(fmt.Sprint(i)), "a:1")
				want[e.key(fmt.Sprint(i))] = "a:1"
			}
			one.becomes(want)
			two.becomes(want)
		}},
		{name: "a slow reader gets the last state", mark: both, run: func(e *env) {
			m := e.manager()
			w := e.watch(m)
			for i := range 50 {
				e.add(m, e.key("a"), fmt.Sprintf("a:%d", i+1))
			}
			w.becomes(map[string]string{e.key("a"): "a:50"})
		}},
		{name: "the watch goes on after etcd restarts", mark: both, members: 1, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("a"), "a:1")
			w := e.watch(m)
			w.next()
			e.etcd.Member(0).Kill()
			e.etcd.Member(0).Start()
			e.etcd.WaitReady()
			e.add(m, e.key("b"), "b:1")
			w.becomes(map[string]string{e.key("a"): "a:1", e.key("b"): "b:1"})
		}},

		{name: "every transaction is a message of its own", mark: theirs, difference: "Changes may be merged into one message", run: func(e *env) {
			m := e.manager()
			w := e.watch(m)
			e.add(m, e.key("a"), "a:0")
			w.next()
			const writes = 10
			for i := range writes {
				e.add(m, e.key("a"), fmt.Sprintf("a:%d", i+1))
			}
			for i := range writes {
				e.same("message", values(w.next()), []endpoints.Update{
					{Op: endpoints.Add, Key: e.key("a"), Endpoint: endpoints.Endpoint{Addr: fmt.Sprintf("a:%d", i+1)}}})
			}
		}},
		{name: "a message has the order of its transaction", mark: theirs, difference: "A message is sorted by key", run: func(e *env) {
			m := e.manager()
			w := e.watch(m)
			e.ok(m.Update(e.ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts(e.key("b"), endpoints.Endpoint{Addr: "b:1"}),
				endpoints.NewAddUpdateOpts(e.key("a"), endpoints.Endpoint{Addr: "a:1"}),
			}))
			updates := w.next()
			e.same("keys", []string{updates[0].Key, updates[1].Key}, []string{e.key("b"), e.key("a")})
		}},
		{name: "a running watch keeps what garbage overwrote", mark: theirs, difference: "A bad overwrite is a deletion", run: func(e *env) {
			w := e.garbled()
			e.same("watch", w.set, map[string]string{e.key("a"): "a:1", e.key("b"): "b:1"})
		}},
		{name: "a running watch and a fresh one agree after garbage", mark: ours, difference: "A bad overwrite is a deletion", run: func(e *env) {
			w := e.garbled()
			fresh := e.watch(e.manager())
			fresh.next()
			e.same("running watch", w.set, fresh.set)
		}},
		{name: "the watch goes on after a compaction while cut off", mark: ours, difference: "A watch ends with its context only", members: 1, run: func(e *env) {
			link, client := e.linked()
			m := e.managerOf(client, e.target)
			e.add(m, e.key("a"), "a:1")
			e.add(m, e.key("b"), "b:1")
			w := e.watch(m)
			w.becomes(map[string]string{e.key("a"): "a:1", e.key("b"): "b:1"})
			link.Cut()
			e.ok(e.manager().DeleteEndpoint(e.ctx, e.key("a")))
			e.add(e.manager(), e.key("c"), "c:1")
			e.compact()
			link.Mend()
			w.becomes(map[string]string{e.key("b"): "b:1", e.key("c"): "c:1"})
			e.add(e.manager(), e.key("d"), "d:1")
			w.becomes(map[string]string{e.key("b"): "b:1", e.key("c"): "c:1", e.key("d"): "d:1"})
		}},
		{name: "the watch goes on after etcd lost its data", mark: ours, members: 1, run: func(e *env) {
			m := e.manager()
			for i := range 20 {
				e.add(m, e.key("a"), fmt.Sprintf("a:%d", i+1))
			}
			w := e.watch(m)
			w.next()
			e.etcd.Member(0).Kill()
			e.etcd.Member(0).Wipe()
			e.etcd.Member(0).Start()
			e.etcd.WaitReady()
			e.add(m, e.key("b"), "b:1")
			w.becomes(map[string]string{e.key("b"): "b:1"})
		}},
		{name: "watches require a leader", mark: ours, run: func(e *env) {
			log, client := e.spy()
			w := e.watch(e.managerOf(client, e.target))
			e.add(e.manager(), e.key("a"), "a:1")
			w.next()
			if n := log.seen().leaderless; n > 0 {
				e.failf("%d watch streams go on at a member without a leader", n)
			}
		}},
		{name: "managers and channels of a client share one watch", mark: ours, run: func(e *env) {
			log, client := e.spy()
			for range 5 {
				e.watch(e.managerOf(client, e.target))
				e.resolveBy(e.builderOf(client), e.target)
			}
			e.add(e.manager(), e.key("a"), "a:1")
			e.shows(e.resolveBy(e.builderOf(client), e.target), "a:1")
			n := 0
			for _, w := range log.seen().watches {
				if string(w.Key) == e.target+"/" && len(w.RangeEnd) > 0 {
					n++
				}
			}
			if n != 1 {
				e.failf("%d watches were opened", n)
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
func (e *env) garbled() *watcher {
	m := e.manager()
	e.add(m, e.key("a"), "a:1")
	w := e.watch(m)
	w.next()
	e.put(e.key("a"), "not JSON")
	e.add(m, e.key("b"), "b:1")
	for w.set[e.key("b")] == "" {
		w.next()
	}
	return w
}

// compact forgets every revision before now.
func (e *env) compact() {
	resp, err := e.client.Get(e.ctx, "revision")
	e.ok(err)
	_, err = e.client.Compact(e.ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
	e.ok(err)
}
