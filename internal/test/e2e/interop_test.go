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
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// TestInterop has etcdctl, etcd's own naming package and Rollcall write endpoints of one
// service, read all of them, call all of them, and take each other's out again.
func TestInterop(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	const service = "foo/bar/my-service"
	ctx := lab.Context(t)
	side := func(n lab.Naming) *lab.Env {
		return &lab.Env{T: t, Ctx: ctx, Naming: n, Etcd: etcd, Client: etcd.Client(t), Target: service}
	}
	theirs, ours := side(lab.Etcd), side(lab.Rollcall)
	sides := []*lab.Env{theirs, ours}

	// Those who are there before and see it come.
	watches := []*lab.Watcher{theirs.Watch(theirs.Manager()), ours.Watch(ours.Manager())}
	conns := make(map[*lab.Env]func(names ...string))
	for _, e := range sides {
		conn := e.Dial("etcd:///" + service)
		conns[e] = func(names ...string) { e.Reaches(conn, names...) }
	}

	// Everyone writes.
	metadata := map[string]any{"weight": 3.0, "zone": "eu-1"}
	want := make(endpoints.Key2EndpointMap)
	addr := func(name string) string {
		addr := lab.StartServer(t, name).Addr
		want[rollcall.Key(service, name)] = endpoints.Endpoint{Addr: addr, Metadata: metadata}
		return addr
	}
	etcd.Etcdctl(t, "put", service+"/etcdctl", fmt.Sprintf(`{"Addr":%q,"Metadata":{"weight":3,"zone":"eu-1"}}`, addr("etcdctl")))
	for _, e := range sides {
		name := e.Naming.Name
		e.OK(e.Manager().AddEndpoint(ctx, e.Key(name), endpoints.Endpoint{Addr: addr(name), Metadata: metadata}))
	}
	registration := register(t, ours.Client, service, rollcall.Endpoint{ID: "registrar", Addr: addr("registrar"), Metadata: metadata})

	// Everyone reads all of it.
	for _, e := range sides {
		got, err := e.Manager().List(ctx)
		e.OK(err)
		e.Same(e.Naming.Name+" lists", got, want)
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
			if got := e.Listed(e.Manager()); !cmp.Equal(got, set) {
				t.Errorf("%s lists %v, want %v", e.Naming.Name, got, set)
			}
			conns[e](names...)
			fresh := e.Dial("etcd:///" + service)
			e.Reaches(fresh, names...)
		}
		for _, w := range watches {
			w.Becomes(set)
		}
	}
	everyoneHas("etcd", "etcdctl", "registrar", "rollcall")

	// Everyone takes out what another one put.
	etcd.Etcdctl(t, "del", service+"/rollcall")
	everyoneHas("etcd", "etcdctl", "registrar")
	ours.OK(ours.Manager().DeleteEndpoint(ctx, ours.Key("etcd")))
	everyoneHas("etcdctl", "registrar")
	theirs.OK(theirs.Manager().DeleteEndpoint(ctx, theirs.Key("etcdctl")))
	everyoneHas("registrar")
	theirs.Serve("last")
	want[theirs.Key("last")] = endpoints.Endpoint{Addr: theirs.Listed(theirs.Manager())[theirs.Key("last")]}
	if err := registration.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	everyoneHas("last")
}

// register registers an endpoint until the test ends.
func register(t *testing.T, client *clientv3.Client, service string, ep rollcall.Endpoint) *rollcall.Registration {
	t.Helper()
	registrar, err := rollcall.NewRegistrar(lab.Directory(t, client), rollcall.RegistrarOptions{NoOrigin: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registrar.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	registration, err := registrar.Register(service, ep)
	if err != nil {
		t.Fatal(err)
	}
	if err := registration.Wait(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	return registration
}
