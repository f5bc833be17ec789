// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/endpoints"
)

func managerChecks() []check {
	return []check{
		{name: "a manager needs a client and a target", mark: both, run: checkNewManager},
		{name: "add, list, delete", mark: both, run: checkAddListDelete},
		{name: "an empty target lists as an empty map", mark: both, run: func(e *env) {
			all, err := e.manager().List(e.ctx)
			e.ok(err)
			if all == nil || len(all) > 0 {
				e.failf("listed %v", all)
			}
		}},
		{name: "metadata of every kind of JSON comes back", mark: both, run: checkMetadataRoundTrip},
		{name: "stored bytes are {\"Op\":0,\"Addr\":...,\"Metadata\":...}", mark: both, run: checkStoredBytes},
		{name: "an address without a port can be stored", mark: both, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("a"), "1.2.3.4")
			e.same("list", e.listed(m), map[string]string{e.key("a"): "1.2.3.4"})
		}},
		{name: "an update is one transaction", mark: both, run: checkOneTransaction},
		{name: "a refused update writes nothing", mark: both, run: checkAllOrNothing},
		{name: "an update of nothing is no error", mark: both, run: func(e *env) {
			e.ok(e.manager().Update(e.ctx, nil))
		}},
		{name: "one key added twice in an update is refused", mark: both, run: func(e *env) {
			err := e.manager().Update(e.ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts(e.key("a"), endpoints.Endpoint{Addr: "a:1"}),
				endpoints.NewAddUpdateOpts(e.key("a"), endpoints.Endpoint{Addr: "a:2"}),
			})
			if err == nil || e.stored(e.key("a")) != nil {
				e.failf("err %v, stored %v", err, e.stored(e.key("a")))
			}
		}},
		{name: "a key outside the target is InvalidArgument", mark: both, run: checkBadKey},
		{name: "an unknown operation is InvalidArgument", mark: both, run: func(e *env) {
			e.refuses(&endpoints.UpdateWithOpts{Update: endpoints.Update{Op: 7, Key: e.key("a")}})
		}},
		{name: "metadata that is no JSON is InvalidArgument", mark: both, run: checkUnencodable},
		{name: "deleting what is not there is no error", mark: both, run: func(e *env) {
			e.ok(e.manager().DeleteEndpoint(e.ctx, e.key("nobody")))
		}},
		{name: "options reach etcd: lease", mark: both, run: checkLease},
		{name: "options reach etcd: an unknown lease is refused", mark: both, run: func(e *env) {
			err := e.manager().AddEndpoint(e.ctx, e.key("a"), endpoints.Endpoint{Addr: "a:1"}, clientv3.WithLease(4711))
			if err == nil {
				e.failf("taken")
			}
		}},
		{name: "options reach etcd: delete by prefix", mark: both, run: checkDeletePrefix},
		{name: "a target sees its own keys only", mark: both, run: checkPrefixIsolation},
		{name: "a target sees nested services", mark: both, run: func(e *env) {
			e.add(e.manager(), e.key("bar/my-service/e1"), "1.2.3.4")
			e.same("list", e.listed(e.manager()), map[string]string{e.key("bar/my-service/e1"): "1.2.3.4"})
		}},
		{name: "any key that etcd takes works", mark: both, run: checkOddKeys},
		{name: "values of all times are read", mark: both, run: checkOldValues},
		{name: "a value that is not JSON is left out, its neighbours are not", mark: both, run: func(e *env) {
			e.put(e.key("a"), "not JSON")
			e.put(e.key("b"), strings.Repeat("[", 100000))
			e.put(e.key("c"), `{"Addr":7}`)
			e.put(e.key("d"), `{"Addr":"d:1"}`)
			e.same("list", e.listed(e.manager()), map[string]string{e.key("d"): "d:1"})
		}},
		{name: "a client with a namespace stays in it", mark: both, run: checkNamespace},
		{name: "a cancelled context ends calls", mark: both, run: func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx)
			cancel()
			m := e.manager()
			_, listErr := m.List(ctx)
			_, watchErr := m.NewWatchChannel(ctx)
			addErr := m.AddEndpoint(ctx, e.key("a"), endpoints.Endpoint{Addr: "a:1"})
			if listErr == nil || watchErr == nil || addErr == nil {
				e.failf("list %v, watch %v, add %v", listErr, watchErr, addErr)
			}
		}},
		{name: "a manager serves many goroutines", mark: both, run: checkConcurrent},

		{name: "lists are linearizable", mark: ours, difference: "Lists are linearizable", run: func(e *env) {
			log, client := e.spy()
			e.listed(e.managerOf(client, e.target))
			for _, r := range log.seen().ranges {
				if r.Serializable {
					e.failf("the list was read serializably")
				}
			}
		}},
		{name: "a list is answered without a quorum", mark: theirs, difference: "Lists are linearizable", members: 2, run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("a"), "a:1")
			e.etcd.Member(1).Kill()
			client := e.clientAt(e.etcd.Member(0).Addr())
			e.same("list", e.listed(e.managerOf(client, e.target)), map[string]string{e.key("a"): "a:1"})
		}},
		{name: "`{}` and a stored deletion are no endpoints", mark: ours, difference: "Values without an address are no endpoints", run: func(e *env) {
			e.put(e.key("a"), `{}`)
			e.put(e.key("b"), `{"Op":1,"Addr":"b:1"}`)
			e.put(e.key("c"), `{"Op":0,"Addr":"c:1"}`)
			e.same("list", e.listed(e.manager()), map[string]string{e.key("c"): "c:1"})
		}},
		{name: "an endpoint without an address can be written", mark: theirs, difference: "Values without an address are no endpoints", run: func(e *env) {
			e.add(e.manager(), e.key("a"), "")
		}},
		{name: "metadata over 1 MiB can be written", mark: theirs, difference: "Metadata is at most 1 MiB", run: func(e *env) {
			e.ok(e.manager().AddEndpoint(e.ctx, e.key("a"), endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("m", 1<<20)}))
		}},
		{name: "an update over a limit is a LimitError", mark: ours, difference: "An update over a limit is a LimitError", run: checkLimits},
		{name: "the document's atomic update: delete and add of one key", mark: ours, difference: "A key may be deleted and added in one update", run: func(e *env) {
			m := e.manager()
			e.add(m, e.key("e1"), "1.2.3.4")
			e.ok(m.Update(e.ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewDeleteUpdateOpts(e.key("e1")),
				endpoints.NewAddUpdateOpts(e.key("e1"), endpoints.Endpoint{Addr: "1.2.3.14"}),
			}))
			e.same("list", e.listed(m), map[string]string{e.key("e1"): "1.2.3.14"})
		}},
		{name: "a nil update is an error", mark: ours, run: func(e *env) { e.refuses(nil) }},
	}
}

func checkNewManager(e *env) {
	if _, err := e.naming.newManager(nil, e.target); err == nil {
		e.failf("no error without a client")
	}
	if _, err := e.naming.newManager(e.client, ""); err == nil {
		e.failf("no error without a target")
	}
}

func checkAddListDelete(e *env) {
	m := e.manager()
	e.add(m, e.key("a"), "a:1")
	e.add(m, e.key("b"), "b:1")
	e.add(m, e.key("b"), "b:2")
	e.same("list", e.listed(m), map[string]string{e.key("a"): "a:1", e.key("b"): "b:2"})
	e.ok(m.DeleteEndpoint(e.ctx, e.key("a")))
	e.same("list", e.listed(m), map[string]string{e.key("b"): "b:2"})
}

// metadataKinds are values of every kind and what encoding/json makes of them.
func metadataKinds() map[string][2]any {
	return map[string][2]any{
		"null":   {nil, nil},
		"text":   {"<a&b> \u2028 \"é\"", "<a&b> \u2028 \"é\""},
		"number": {1 << 20, float64(1 << 20)},
		"float":  {1.5e300, 1.5e300},
		"bool":   {true, true},
		"array":  {[]any{1, "a", nil}, []any{1.0, "a", nil}},
		"object": {map[string]any{"z": 1, "a": map[string]any{"b": nil}}, map[string]any{"z": 1.0, "a": map[string]any{"b": nil}}},
		"struct": {struct {
			Weight int    `json:"weight"`
			Zone   string `json:"zone,omitempty"`
		}{3, ""}, map[string]any{"weight": 3.0}},
		"raw":   {json.RawMessage(` { "a" : [ 1 , 2 ] } `), map[string]any{"a": []any{1.0, 2.0}}},
		"bytes": {[]byte("abc"), "YWJj"},
		"empty": {map[string]any{}, map[string]any{}},
	}
}

func checkMetadataRoundTrip(e *env) {
	m := e.manager()
	want := make(endpoints.Key2EndpointMap)
	for kind, pair := range metadataKinds() {
		e.ok(m.AddEndpoint(e.ctx, e.key(kind), endpoints.Endpoint{Addr: "a:1", Metadata: pair[0]}))
		want[e.key(kind)] = endpoints.Endpoint{Addr: "a:1", Metadata: pair[1]}
	}
	got, err := m.List(e.ctx)
	e.ok(err)
	e.same("list", got, want)
}

func checkStoredBytes(e *env) {
	m := e.manager()
	for kind, pair := range metadataKinds() {
		addr := "<" + kind + ">&é:1"
		e.ok(m.AddEndpoint(e.ctx, e.key(kind), endpoints.Endpoint{Addr: addr, Metadata: pair[0]}))
		want, err := json.Marshal(struct {
			Op       uint8
			Addr     string
			Metadata any
		}{0, addr, pair[0]})
		e.ok(err)
		e.same(kind, string(e.stored(e.key(kind)).Value), string(want))
	}
	e.add(m, e.key("plain"), "1.2.3.4:5")
	e.same("plain", string(e.stored(e.key("plain")).Value), `{"Op":0,"Addr":"1.2.3.4:5","Metadata":null}`)
}

func checkOneTransaction(e *env) {
	m := e.manager()
	e.add(m, e.key("old"), "old:1")
	e.ok(m.Update(e.ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewAddUpdateOpts(e.key("a"), endpoints.Endpoint{Addr: "a:1"}),
		endpoints.NewAddUpdateOpts(e.key("b"), endpoints.Endpoint{Addr: "b:1"}),
		endpoints.NewDeleteUpdateOpts(e.key("old")),
	}))
	a, b := e.stored(e.key("a")), e.stored(e.key("b"))
	if a == nil || b == nil || a.ModRevision != b.ModRevision || e.stored(e.key("old")) != nil {
		e.failf("a %v, b %v, old %v", a, b, e.stored(e.key("old")))
	}
}

func checkAllOrNothing(e *env) {
	good := endpoints.NewAddUpdateOpts(e.key("good"), endpoints.Endpoint{Addr: "a:1"})
	for _, bad := range []*endpoints.UpdateWithOpts{
		endpoints.NewAddUpdateOpts("elsewhere/x", endpoints.Endpoint{Addr: "a:1"}),
		endpoints.NewAddUpdateOpts(e.key("x"), endpoints.Endpoint{Addr: "a:1", Metadata: math.NaN()}),
		endpoints.NewAddUpdateOpts(e.key("x"), endpoints.Endpoint{Addr: "a:1"}, clientv3.WithLease(4711)),
	} {
		if err := e.manager().Update(e.ctx, []*endpoints.UpdateWithOpts{good, bad}); err == nil {
			e.failf("update with %v was taken", bad.Update)
		}
		if kv := e.stored(e.key("good")); kv != nil {
			e.failf("beside %v, the other endpoint was written", bad.Update)
		}
	}
}

// refuses fails unless the update is InvalidArgument.
func (e *env) refuses(u *endpoints.UpdateWithOpts) {
	err := e.manager().Update(e.ctx, []*endpoints.UpdateWithOpts{u})
	if status.Code(err) != codes.InvalidArgument {
		e.failf("update %v: got %v, want InvalidArgument", u, err)
	}
}

func checkBadKey(e *env) {
	for _, key := range []string{"", "a", e.target, e.target + "-2/a", e.target + "_other/a", "/" + e.key("a"), strings.ToUpper(e.key("a"))} {
		e.refuses(endpoints.NewAddUpdateOpts(key, endpoints.Endpoint{Addr: "a:1"}))
		e.refuses(endpoints.NewDeleteUpdateOpts(key))
	}
}

func checkUnencodable(e *env) {
	for _, metadata := range []any{make(chan int), func() {}, math.Inf(1), json.RawMessage("{"), map[string]any{"a": complex(1, 1)}} {
		e.refuses(endpoints.NewAddUpdateOpts(e.key("a"), endpoints.Endpoint{Addr: "a:1", Metadata: metadata}))
	}
}

func checkLease(e *env) {
	m := e.manager()
	w := e.watch(m)
	lease, err := e.client.Grant(e.ctx, 600)
	e.ok(err)
	e.add(m, e.key("a"), "a:1", clientv3.WithLease(lease.ID))
	e.add(m, e.key("b"), "b:1")
	if kv := e.stored(e.key("a")); kv.Lease != int64(lease.ID) {
		e.failf("stored under lease %x, want %x", kv.Lease, lease.ID)
	}
	w.becomes(map[string]string{e.key("a"): "a:1", e.key("b"): "b:1"})
	_, err = e.client.Revoke(e.ctx, lease.ID)
	e.ok(err)
	w.becomes(map[string]string{e.key("b"): "b:1"})
	e.same("list", e.listed(m), map[string]string{e.key("b"): "b:1"})
}

func checkDeletePrefix(e *env) {
	m := e.manager()
	e.add(m, e.key("a/1"), "a:1")
	e.add(m, e.key("a/2"), "a:2")
	e.add(m, e.key("b"), "b:1")
	e.ok(m.DeleteEndpoint(e.ctx, e.key("a/"), clientv3.WithPrefix()))
	e.same("list", e.listed(m), map[string]string{e.key("b"): "b:1"})
}

func checkPrefixIsolation(e *env) {
	e.add(e.manager(), e.key("a"), "a:1")
	for _, other := range []string{e.target + "-2", e.target + "_other", e.target + "0"} {
		e.add(e.managerOf(e.client, other), other+"/x", "x:1")
	}
	e.same("list", e.listed(e.manager()), map[string]string{e.key("a"): "a:1"})
	w := e.watch(e.manager())
	e.add(e.managerOf(e.client, e.target+"-2"), e.target+"-2/y", "y:1")
	e.add(e.manager(), e.key("b"), "b:1")
	w.becomes(map[string]string{e.key("a"): "a:1", e.key("b"): "b:1"})
}

func checkOddKeys(e *env) {
	m := e.manager()
	want := make(map[string]string)
	for _, id := range []string{"", "/", "a//b/", "ключ", "a b\t%2F?#", "\x00\xff", strings.Repeat("k", 4000)} {
		e.add(m, e.key(id), "a:1")
		want[e.key(id)] = "a:1"
	}
	e.same("list", e.listed(m), want)
	slashed := e.managerOf(e.client, e.target+"/")
	e.same("list of a target that ends in a slash", e.listed(slashed), map[string]string{e.key("/"): "a:1"})
}

func checkOldValues(e *env) {
	want := make(map[string]string)
	for i, value := range []string{
		`{"Addr":"a:1"}`,
		`{"Addr":"a:1","Metadata":"..."}`,
		`{"Op":0,"Addr":"a:1","Metadata":null}`,
		`{"op":0,"addr":"a:1","metadata":{}}`,
		`{"ADDR":"a:1","Unknown":[1,2],"Attributes":{}}`,
		" {\n \"Addr\" : \"a:1\" }\n",
	} {
		e.put(e.key(fmt.Sprint(i)), value)
		want[e.key(fmt.Sprint(i))] = "a:1"
	}
	e.same("list", e.listed(e.manager()), want)
}

func checkNamespace(e *env) {
	client := e.clientAt(e.etcd.Endpoints()...)
	ns := e.target + "/ns/"
	client.KV = namespace.NewKV(client.KV, ns)
	client.Watcher = namespace.NewWatcher(client.Watcher, ns)
	m := e.managerOf(client, "svc")
	w := e.watch(m)
	e.add(m, "svc/a", "a:1")
	w.becomes(map[string]string{"svc/a": "a:1"})
	e.same("list", e.listed(m), map[string]string{"svc/a": "a:1"})
	if e.stored(ns+"svc/a") == nil {
		e.failf("not stored in the namespace")
	}
	e.ok(m.DeleteEndpoint(e.ctx, "svc/a"))
	w.becomes(map[string]string{})
	e.add(m, "svc/b", "b:1")
	e.shows(e.resolveBy(e.builderOf(client), "svc"), "b:1")
}

func checkConcurrent(e *env) {
	m := e.manager()
	w := e.watch(m)
	want := make(map[string]string)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 8 {
		want[e.key(fmt.Sprint(i))] = "a:1"
		wg.Go(func() {
			err := m.AddEndpoint(e.ctx, e.key(fmt.Sprint(i)), endpoints.Endpoint{Addr: "a:1"})
			_, listErr := m.List(e.ctx)
			errs <- errors.Join(err, listErr)
		})
	}
	wg.Wait()
	for range 8 {
		e.ok(<-errs)
	}
	e.same("list", e.listed(m), want)
	w.becomes(want)
}

func checkLimits(e *env) {
	var many []*endpoints.UpdateWithOpts
	for i := range 129 {
		many = append(many, endpoints.NewAddUpdateOpts(e.key(fmt.Sprint(i)), endpoints.Endpoint{Addr: "a:1"}))
	}
	var large []*endpoints.UpdateWithOpts
	for i := range 2 {
		large = append(large, endpoints.NewAddUpdateOpts(e.key(fmt.Sprint(i)), endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("m", 1<<20-2)}))
	}
	for _, updates := range [][]*endpoints.UpdateWithOpts{many, large} {
		err := e.manager().Update(e.ctx, updates)
		var limit *endpoints.LimitError
		if err == nil || len(e.listed(e.manager())) > 0 {
			e.failf("update of %d: %v, and something was written", len(updates), err)
		}
		if !errors.As(err, &limit) || limit.Operations != len(updates) || status.Code(err) != codes.InvalidArgument {
			e.failf("update of %d: got %v, want a LimitError", len(updates), err)
		}
	}
}

func (e *env) clientAt(endpoints ...string) *clientv3.Client {
	return e.clientOf(func(cfg *clientv3.Config) { cfg.Endpoints = endpoints })
}

// quietMoment waits for a moment in which nothing more should come.
const quietMoment = 300 * time.Millisecond
