// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
)

// TestInterop has etcdctl, etcd's own naming package and Rollcall write endpoints of one
// service, read all of them, call all of them, and take each other's out again.
func TestInterop(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	const service = "foo/bar/my-service"
	ctx := testContext(t)
	side := func(n naming) *env {
		return &env{t: t, ctx: ctx, naming: n, etcd: etcd, client: etcd.Client(t), target: service}
	}
	theirs, ours := side(etcdNaming), side(rollcallNaming)
	sides := []*env{theirs, ours}

	// Those who are there before and see it come.
	watches := []*watcher{theirs.watch(theirs.manager()), ours.watch(ours.manager())}
	conns := make(map[*env]func(names ...string))
	for _, e := range sides {
		conn := e.dial("etcd:///" + service)
		conns[e] = func(names ...string) { e.reaches(conn, names...) }
	}

	// Everyone writes.
	metadata := map[string]any{"weight": 3.0, "zone": "eu-1"}
	want := make(endpoints.Key2EndpointMap)
	addr := func(name string) string {
		addr := startNamedServer(t, name).addr
		want[rollcall.Key(service, name)] = endpoints.Endpoint{Addr: addr, Metadata: metadata}
		return addr
	}
	etcd.Etcdctl(t, "put", service+"/etcdctl", fmt.Sprintf(`{"Addr":%q,"Metadata":{"weight":3,"zone":"eu-1"}}`, addr("etcdctl")))
	for _, e := range sides {
		name := e.naming.name
		e.ok(e.manager().AddEndpoint(ctx, e.key(name), endpoints.Endpoint{Addr: addr(name), Metadata: metadata}))
	}
	registration := register(t, ours.client, service, rollcall.Endpoint{ID: "registrar", Addr: addr("registrar"), Metadata: metadata})

	// Everyone reads all of it.
	for _, e := range sides {
		got, err := e.manager().List(ctx)
		e.ok(err)
		e.same(e.naming.name+" lists", got, want)
	}
	printed := strings.Fields(etcd.Etcdctl(t, "get", "--prefix", service+"/"))
	if len(printed) != 2*len(want) {
		t.Errorf("etcdctl get printed %q, want %d keys and values", printed, len(want))
	}
	for i := 0; i+1 < len(printed); i += 2 {
		value := fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":{"weight":3,"zone":"eu-1"}}`, want[printed[i]].Addr)
		if printed[i] != service+"/etcdctl" && printed[i+1] != value {
			t.Errorf("%s: stored %s, want %s", printed[i], printed[i+1], value)
		}
	}
	everyoneHas := func(names ...string) {
		t.Helper()
		set := make(map[string]string)
		for _, name := range names {
			set[rollcall.Key(service, name)] = want[rollcall.Key(service, name)].Addr
		}
		for _, e := range sides {
			if got := e.listed(e.manager()); !cmp.Equal(got, set) {
				t.Errorf("%s lists %v, want %v", e.naming.name, got, set)
			}
			conns[e](names...)
			fresh := e.dial("etcd:///" + service)
			e.reaches(fresh, names...)
		}
		for _, w := range watches {
			w.becomes(set)
		}
	}
	everyoneHas("etcd", "etcdctl", "registrar", "rollcall")

	// Everyone takes out what another one put.
	etcd.Etcdctl(t, "del", service+"/rollcall")
	everyoneHas("etcd", "etcdctl", "registrar")
	ours.ok(ours.manager().DeleteEndpoint(ctx, ours.key("etcd")))
	everyoneHas("etcdctl", "registrar")
	theirs.ok(theirs.manager().DeleteEndpoint(ctx, theirs.key("etcdctl")))
	everyoneHas("registrar")
	theirs.serve("last")
	want[theirs.key("last")] = endpoints.Endpoint{Addr: theirs.listed(theirs.manager())[theirs.key("last")]}
	if err := registration.Close(ctx); err != nil {
		t.Error(err)
	}
	everyoneHas("last")
}

// register registers an endpoint until the test ends.
func register(t *testing.T, client *clientv3.Client, service string, ep rollcall.Endpoint) *rollcall.Registration {
	t.Helper()
	registrar, err := rollcall.NewRegistrar(client, rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registrar.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	registration, err := registrar.Register(service, ep)
	if err != nil {
		t.Fatal(err)
	}
	if err := registration.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return registration
}
