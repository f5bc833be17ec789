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
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

func managerChecks() []check {
	return []check{
		{name: "a manager needs a client and a target", mark: both, run: checkNewManager},
		{name: "add, list, delete", mark: both, run: checkAddListDelete},
		{name: "an empty target lists as an empty map", mark: both, run: func(e *lab.Env) {
			all, err := e.Manager().List(e.Ctx)
			e.OK(err)
			if all == nil || len(all) > 0 {
				e.Failf("listed %v", all)
			}
		}},
		{name: "metadata of every kind of JSON comes back", mark: both, run: checkMetadataRoundTrip},
		{name: "stored bytes are {\"Op\":0,\"Addr\":...,\"Metadata\":...}", mark: both, run: checkStoredBytes},
		{name: "an address without a port can be stored", mark: both, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("a"), "1.2.3.4")
			e.Same("list", e.Listed(m), map[string]string{e.Key("a"): "1.2.3.4"})
		}},
		{name: "an update is one transaction", mark: both, run: checkOneTransaction},
		{name: "a refused update writes nothing", mark: both, run: checkAllOrNothing},
		{name: "an update of nothing is no error", mark: both, run: func(e *lab.Env) {
			e.OK(e.Manager().Update(e.Ctx, nil))
		}},
		{name: "one key added twice in an update is refused", mark: both, run: func(e *lab.Env) {
			err := e.Manager().Update(e.Ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "a:1"}),
				endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "a:2"}),
			})
			if err == nil || e.Stored(e.Key("a")) != nil {
				e.Failf("err %v, stored %v", err, e.Stored(e.Key("a")))
			}
		}},
		{name: "a key outside the target is InvalidArgument", mark: both, run: checkBadKey},
		{name: "an unknown operation is InvalidArgument", mark: both, run: func(e *lab.Env) {
			refuses(e, &endpoints.UpdateWithOpts{Update: endpoints.Update{Op: 7, Key: e.Key("a")}})
		}},
		{name: "metadata that is no JSON is InvalidArgument", mark: both, run: checkUnencodable},
		{name: "deleting what is not there is no error", mark: both, run: func(e *lab.Env) {
			e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("nobody")))
		}},
		{name: "options reach etcd: lease", mark: both, run: checkLease},
		{name: "options reach etcd: an unknown lease is refused", mark: both, run: func(e *lab.Env) {
			err := e.Manager().AddEndpoint(e.Ctx, e.Key("a"), endpoints.Endpoint{Addr: "a:1"}, clientv3.WithLease(4711))
			if err == nil {
				e.Failf("taken")
			}
		}},
		{name: "options reach etcd: delete by prefix", mark: theirs, difference: "An update changes its own key only", run: checkDeletePrefix},
		{name: "a target sees its own keys only", mark: both, run: checkPrefixIsolation},
		{name: "a target sees nested services", mark: both, run: func(e *lab.Env) {
			e.Add(e.Manager(), e.Key("bar/my-service/e1"), "1.2.3.4")
			e.Same("list", e.Listed(e.Manager()), map[string]string{e.Key("bar/my-service/e1"): "1.2.3.4"})
		}},
		{name: "any key that etcd takes works", mark: both, run: checkOddKeys},
		{name: "values of all times are read", mark: both, run: checkOldValues},
		{name: "a value that is not JSON is left out, its neighbours are not", mark: both, run: func(e *lab.Env) {
			e.Put(e.Key("a"), "not JSON")
			e.Put(e.Key("b"), strings.Repeat("[", 100000))
			e.Put(e.Key("c"), `{"Addr":7}`)
			e.Put(e.Key("d"), `{"Addr":"d:1"}`)
			e.Same("list", e.Listed(e.Manager()), map[string]string{e.Key("d"): "d:1"})
		}},
		{name: "a client with a namespace stays in it", mark: both, run: checkNamespace},
		{name: "a cancelled context ends calls", mark: both, run: func(e *lab.Env) {
			ctx, cancel := context.WithCancel(e.Ctx)
			cancel()
			m := e.Manager()
			_, listErr := m.List(ctx)
			_, watchErr := m.NewWatchChannel(ctx)
			addErr := m.AddEndpoint(ctx, e.Key("a"), endpoints.Endpoint{Addr: "a:1"})
			if listErr == nil || watchErr == nil || addErr == nil {
				e.Failf("list %v, watch %v, add %v", listErr, watchErr, addErr)
			}
		}},
		{name: "a manager serves many goroutines", mark: both, run: checkConcurrent},

		{name: "lists are linearizable", mark: ours, difference: "Lists are linearizable", run: func(e *lab.Env) {
			log, client := e.Spy()
			e.Listed(e.ManagerOf(client, e.Target))
			for _, r := range log.Seen().Ranges {
				if r.Serializable {
					e.Failf("the list was read serializably")
				}
			}
		}},
		{name: "a list is answered without a quorum", mark: theirs, difference: "Lists are linearizable", members: 2, run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("a"), "a:1")
			e.Etcd.Member(1).Kill()
			client := e.ClientAt(e.Etcd.Member(0).Addr())
			e.Same("list", e.Listed(e.ManagerOf(client, e.Target)), map[string]string{e.Key("a"): "a:1"})
		}},
		{name: "`{}` and a stored deletion are no endpoints", mark: ours, difference: "Values without an address are no endpoints", run: func(e *lab.Env) {
			e.Put(e.Key("a"), `{}`)
			e.Put(e.Key("b"), `{"Op":1,"Addr":"b:1"}`)
			e.Put(e.Key("c"), `{"Op":0,"Addr":"c:1"}`)
			e.Same("list", e.Listed(e.Manager()), map[string]string{e.Key("c"): "c:1"})
		}},
		{name: "an endpoint without an address can be written", mark: theirs, difference: "Values without an address are no endpoints", run: func(e *lab.Env) {
			e.Add(e.Manager(), e.Key("a"), "")
		}},
		{name: "metadata over 1 MiB can be written", mark: theirs, difference: "Metadata is at most 1 MiB", run: func(e *lab.Env) {
			e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key("a"), endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("m", 1<<20)}))
		}},
		{name: "an update over a limit is a LimitError", mark: ours, difference: "An update over a limit is a LimitError", run: checkLimits},
		{name: "the document's atomic update: delete and add of one key", mark: ours, difference: "A key may be deleted and added in one update", run: func(e *lab.Env) {
			m := e.Manager()
			e.Add(m, e.Key("e1"), "1.2.3.4")
			e.OK(m.Update(e.Ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewDeleteUpdateOpts(e.Key("e1")),
				endpoints.NewAddUpdateOpts(e.Key("e1"), endpoints.Endpoint{Addr: "1.2.3.14"}),
			}))
			e.Same("list", e.Listed(m), map[string]string{e.Key("e1"): "1.2.3.14"})
		}},
		{name: "a nil update is an error", mark: ours, run: func(e *lab.Env) { refuses(e, nil) }},
	}
}

func checkNewManager(e *lab.Env) {
	if _, err := e.Naming.NewManager(nil, e.Target); err == nil {
		e.Failf("no error without a client")
	}
	if _, err := e.Naming.NewManager(e.Client, ""); err == nil {
		e.Failf("no error without a target")
	}
}

func checkAddListDelete(e *lab.Env) {
	m := e.Manager()
	e.Add(m, e.Key("a"), "a:1")
	e.Add(m, e.Key("b"), "b:1")
	e.Add(m, e.Key("b"), "b:2")
	e.Same("list", e.Listed(m), map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:2"})
	e.OK(m.DeleteEndpoint(e.Ctx, e.Key("a")))
	e.Same("list", e.Listed(m), map[string]string{e.Key("b"): "b:2"})
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

func checkMetadataRoundTrip(e *lab.Env) {
	m := e.Manager()
	want := make(endpoints.Key2EndpointMap)
	for kind, pair := range metadataKinds() {
		e.OK(m.AddEndpoint(e.Ctx, e.Key(kind), endpoints.Endpoint{Addr: "a:1", Metadata: pair[0]}))
		want[e.Key(kind)] = endpoints.Endpoint{Addr: "a:1", Metadata: pair[1]}
	}
	got, err := m.List(e.Ctx)
	e.OK(err)
	e.Same("list", got, want)
}

func checkStoredBytes(e *lab.Env) {
	m := e.Manager()
	for kind, pair := range metadataKinds() {
		addr := "<" + kind + ">&é:1"
		e.OK(m.AddEndpoint(e.Ctx, e.Key(kind), endpoints.Endpoint{Addr: addr, Metadata: pair[0]}))
		want, err := json.Marshal(struct {
			Op       uint8
			Addr     string
			Metadata any
		}{0, addr, pair[0]})
		e.OK(err)
		e.Same(kind, string(e.Stored(e.Key(kind)).Value), string(want))
	}
	e.Add(m, e.Key("plain"), "1.2.3.4:5")
	e.Same("plain", string(e.Stored(e.Key("plain")).Value), `{"Op":0,"Addr":"1.2.3.4:5","Metadata":null}`)
}

func checkOneTransaction(e *lab.Env) {
	m := e.Manager()
	e.Add(m, e.Key("old"), "old:1")
	e.OK(m.Update(e.Ctx, []*endpoints.UpdateWithOpts{
		endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "a:1"}),
		endpoints.NewAddUpdateOpts(e.Key("b"), endpoints.Endpoint{Addr: "b:1"}),
		endpoints.NewDeleteUpdateOpts(e.Key("old")),
	}))
	a, b := e.Stored(e.Key("a")), e.Stored(e.Key("b"))
	if a == nil || b == nil || a.ModRevision != b.ModRevision || e.Stored(e.Key("old")) != nil {
		e.Failf("a %v, b %v, old %v", a, b, e.Stored(e.Key("old")))
	}
}

func checkAllOrNothing(e *lab.Env) {
	good := endpoints.NewAddUpdateOpts(e.Key("good"), endpoints.Endpoint{Addr: "a:1"})
	for _, bad := range []*endpoints.UpdateWithOpts{
		endpoints.NewAddUpdateOpts("elsewhere/x", endpoints.Endpoint{Addr: "a:1"}),
		endpoints.NewAddUpdateOpts(e.Key("x"), endpoints.Endpoint{Addr: "a:1", Metadata: math.NaN()}),
		endpoints.NewAddUpdateOpts(e.Key("x"), endpoints.Endpoint{Addr: "a:1"}, clientv3.WithLease(4711)),
	} {
		if err := e.Manager().Update(e.Ctx, []*endpoints.UpdateWithOpts{good, bad}); err == nil {
			e.Failf("update with %v was taken", bad.Update)
		}
		if kv := e.Stored(e.Key("good")); kv != nil {
			e.Failf("beside %v, the other endpoint was written", bad.Update)
		}
	}
}

// refuses fails unless the update is InvalidArgument.
func refuses(e *lab.Env, u *endpoints.UpdateWithOpts) {
	err := e.Manager().Update(e.Ctx, []*endpoints.UpdateWithOpts{u})
	if status.Code(err) != codes.InvalidArgument {
		e.Failf("update %v: got %v, want InvalidArgument", u, err)
	}
}

func checkBadKey(e *lab.Env) {
	for _, key := range []string{"", "a", e.Target, e.Target + "-2/a", e.Target + "_other/a", "/" + e.Key("a"), strings.ToUpper(e.Key("a"))} {
		refuses(e, endpoints.NewAddUpdateOpts(key, endpoints.Endpoint{Addr: "a:1"}))
		refuses(e, endpoints.NewDeleteUpdateOpts(key))
	}
}

func checkUnencodable(e *lab.Env) {
	for _, metadata := range []any{make(chan int), func() {}, math.Inf(1), json.RawMessage("{"), map[string]any{"a": complex(1, 1)}} {
		refuses(e, endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "a:1", Metadata: metadata}))
	}
}

func checkLease(e *lab.Env) {
	m := e.Manager()
	w := e.Watch(m)
	lease, err := e.Client.Grant(e.Ctx, 600)
	e.OK(err)
	e.Add(m, e.Key("a"), "a:1", clientv3.WithLease(lease.ID))
	e.Add(m, e.Key("b"), "b:1")
	if kv := e.Stored(e.Key("a")); kv.Lease != int64(lease.ID) {
		e.Failf("stored under lease %x, want %x", kv.Lease, lease.ID)
	}
	w.Becomes(map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:1"})
	_, err = e.Client.Revoke(e.Ctx, lease.ID)
	e.OK(err)
	w.Becomes(map[string]string{e.Key("b"): "b:1"})
	e.Same("list", e.Listed(m), map[string]string{e.Key("b"): "b:1"})
}

func checkDeletePrefix(e *lab.Env) {
	m := e.Manager()
	e.Add(m, e.Key("a/1"), "a:1")
	e.Add(m, e.Key("a/2"), "a:2")
	e.Add(m, e.Key("b"), "b:1")
	e.OK(m.DeleteEndpoint(e.Ctx, e.Key("a/"), clientv3.WithPrefix()))
	e.Same("list", e.Listed(m), map[string]string{e.Key("b"): "b:1"})
}

func checkPrefixIsolation(e *lab.Env) {
	e.Add(e.Manager(), e.Key("a"), "a:1")
	for _, other := range []string{e.Target + "-2", e.Target + "_other", e.Target + "0"} {
		e.Add(e.ManagerOf(e.Client, other), other+"/x", "x:1")
	}
	e.Same("list", e.Listed(e.Manager()), map[string]string{e.Key("a"): "a:1"})
	w := e.Watch(e.Manager())
	e.Add(e.ManagerOf(e.Client, e.Target+"-2"), e.Target+"-2/y", "y:1")
	e.Add(e.Manager(), e.Key("b"), "b:1")
	w.Becomes(map[string]string{e.Key("a"): "a:1", e.Key("b"): "b:1"})
}

func checkOddKeys(e *lab.Env) {
	m := e.Manager()
	want := make(map[string]string)
	for _, id := range []string{"", "/", "a//b/", "ключ", "a b\t%2F?#", "\x00\xff", strings.Repeat("k", 4000)} {
		e.Add(m, e.Key(id), "a:1")
		want[e.Key(id)] = "a:1"
	}
	e.Same("list", e.Listed(m), want)
	slashed := e.ManagerOf(e.Client, e.Target+"/")
	e.Same("list of a target that ends in a slash", e.Listed(slashed), map[string]string{e.Key("/"): "a:1"})
}

func checkOldValues(e *lab.Env) {
	want := make(map[string]string)
	for i, value := range []string{
		`{"Addr":"a:1"}`,
		`{"Addr":"a:1","Metadata":"..."}`,
		`{"Op":0,"Addr":"a:1","Metadata":null}`,
		`{"op":0,"addr":"a:1","metadata":{}}`,
		`{"ADDR":"a:1","Unknown":[1,2],"Attributes":{}}`,
		" {\n \"Addr\" : \"a:1\" }\n",
	} {
		e.Put(e.Key(fmt.Sprint(i)), value)
		want[e.Key(fmt.Sprint(i))] = "a:1"
	}
	e.Same("list", e.Listed(e.Manager()), want)
}

func checkNamespace(e *lab.Env) {
	client := e.ClientAt(e.Etcd.Endpoints()...)
	ns := e.Target + "/ns/"
	client.KV = namespace.NewKV(client.KV, ns)
	client.Watcher = namespace.NewWatcher(client.Watcher, ns)
	m := e.ManagerOf(client, "svc")
	w := e.Watch(m)
	e.Add(m, "svc/a", "a:1")
	w.Becomes(map[string]string{"svc/a": "a:1"})
	e.Same("list", e.Listed(m), map[string]string{"svc/a": "a:1"})
	if e.Stored(ns+"svc/a") == nil {
		e.Failf("not stored in the namespace")
	}
	e.OK(m.DeleteEndpoint(e.Ctx, "svc/a"))
	w.Becomes(map[string]string{})
	e.Add(m, "svc/b", "b:1")
	e.Shows(e.ResolveBy(e.BuilderOf(client), "svc"), "b:1")
}

func checkConcurrent(e *lab.Env) {
	m := e.Manager()
	w := e.Watch(m)
	want := make(map[string]string)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 8 {
		want[e.Key(fmt.Sprint(i))] = "a:1"
		wg.Go(func() {
			err := m.AddEndpoint(e.Ctx, e.Key(fmt.Sprint(i)), endpoints.Endpoint{Addr: "a:1"})
			_, listErr := m.List(e.Ctx)
			errs <- errors.Join(err, listErr)
		})
	}
	wg.Wait()
	for range 8 {
		e.OK(<-errs)
	}
	e.Same("list", e.Listed(m), want)
	w.Becomes(want)
}

func checkLimits(e *lab.Env) {
	var many []*endpoints.UpdateWithOpts
	for i := range 129 {
		many = append(many, endpoints.NewAddUpdateOpts(e.Key(fmt.Sprint(i)), endpoints.Endpoint{Addr: "a:1"}))
	}
	var large []*endpoints.UpdateWithOpts
	for i := range 2 {
		large = append(large, endpoints.NewAddUpdateOpts(e.Key(fmt.Sprint(i)), endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("m", 1<<20-2)}))
	}
	for _, updates := range [][]*endpoints.UpdateWithOpts{many, large} {
		err := e.Manager().Update(e.Ctx, updates)
		var limit *endpoints.LimitError
		if err == nil || len(e.Listed(e.Manager())) > 0 {
			e.Failf("update of %d: %v, and something was written", len(updates), err)
		}
		if !errors.As(err, &limit) || limit.Operations != len(updates) || status.Code(err) != codes.InvalidArgument {
			e.Failf("update of %d: got %v, want a LimitError", len(updates), err)
		}
	}
}

// quietMoment waits for a moment in which nothing more should come.
const quietMoment = 300 * time.Millisecond
