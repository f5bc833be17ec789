// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// Where a change to all services ends half way, it shows what it has changed, and names what it has not.
func TestEditAllEndsHalfWay(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	for _, service := range []string{"a", "b", "c"} {
		put1(t, client, service+"/1", `{"Addr":"10.0.0.1:80","Metadata":{"host":"node-1"}}`)
		put1(t, client, service+"/2", `{"Addr":"10.0.0.2:80","Metadata":{"host":"node-2"}}`)
	}
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	check(client.RoleAdd(ctx, "root"))
	check(client.UserAdd(ctx, "root", "secret"))
	check(client.UserGrantRole(ctx, "root", "root"))
	check(client.RoleAdd(ctx, "some"))
	check(client.RoleGrantPermission(ctx, "some", "\x00", "\x00", clientv3.PermissionType(clientv3.PermRead)))
	check(client.RoleGrantPermission(ctx, "some", "a/", "a0", clientv3.PermissionType(clientv3.PermReadWrite)))
	check(client.UserAdd(ctx, "bob", "builder"))
	check(client.UserGrantRole(ctx, "bob", "some"))
	check(client.AuthEnable(ctx))

	r := rollcallAt(t, server.Endpoint(), "drain", "-A", "-l", "host=node-1", "--user", "bob:builder")
	if r.code != exitNotPermitted {
		t.Errorf("exit %d, want %d", r.code, exitNotPermitted)
	}
	wantIn(t, "stdout", r.stdout, "SERVICE", "a        1   10.0.0.1:80  draining")
	if strings.Contains(r.stdout, "\nb ") {
		t.Errorf("what was not changed is shown: %s", r.stdout)
	}
	wantIn(t, "stderr", r.stderr, "1 endpoint was changed, of 1 service", `service "b": etcdserver: permission denied; services changed: "a"; not changed: "b", "c"`)

	r = rollcallAt(t, server.Endpoint(), "undrain", "-A", "-l", "host=node-1", "-l", "zone=", "--user", "bob:builder")
	if r.code != exitUsage {
		t.Errorf("exit %d, want %d", r.code, exitUsage)
	}
	r = rollcallAt(t, server.Endpoint(), "get", "-A", "-l", "status=draining", "-o", "name", "--user", "root:secret")
	if r.stdout != "a/1\n" {
		t.Errorf("%q is draining, want a/1", r.stdout)
	}
}

// planned returns the plan of a drain of node-1.
func planned(t *testing.T, dir *rollcall.Directory) ([]plannedEdit, rollcall.Selector, metadataEdit) {
	t.Helper()
	snap, err := list(t.Context(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	selector, err := rollcall.ParseSelector("host=node-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := edit.Selected(selector)(snap)
	if err != nil {
		t.Fatal(err)
	}
	e := metadataEdit{preview: "DrainPreview", field: "status", value: rollcall.StatusDraining, check: keepServing}
	plan, err := planEdits(snap, keys, e)
	if err != nil {
		t.Fatal(err)
	}
	return plan, selector, e
}

// What others do between the check of all services and the write to one of them is heeded: what has gone is left out, and
// what must not be drained any more stops the change.
func TestEditAllIsMeddledWith(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	for _, service := range []string{"a", "b", "c", "d"} {
		put1(t, client, service+"/1", `{"Addr":"10.0.0.1:80","Metadata":{"host":"node-1"}}`)
		put1(t, client, service+"/2", `{"Addr":"10.0.0.2:80","Metadata":{"host":"node-2"}}`)
	}
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		t.Fatal(err)
	}
	plan, selector, e := planned(t, dir)
	must(t, server.Endpoint(), "rm", "a", "1")
	must(t, server.Endpoint(), "drain", "c", "2")
	var stderr bytes.Buffer
	a := &app{stderr: &stderr, settings: settings{dialTimeout: 5 * time.Second, commandTimeout: 5 * time.Second}}
	done, err := a.applyAll(t.Context(), dir, plan, selector, e)
	if got := changedServices(done); !slices.Equal(got, []string{"b"}) {
		t.Errorf("changed %q, want b alone", got)
	}
	if err == nil {
		t.Fatal("the last serving endpoint was drained")
	}
	wantIn(t, "error", err.Error(), `no other endpoint of service "c" is serving`, `; services changed: "b"; not changed: "c", "d"`)
	wantIn(t, "stderr", stderr.String(), `service "a" has no endpoint with host=node-1 at revision`, "it has gone meanwhile")

	// A signal ends the command without a message of its own.
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signalError{syscall.SIGINT})
	stderr.Reset()
	if done, err := a.applyAll(ctx, dir, plan[1:], selector, e); err == nil || len(done) > 0 {
		t.Errorf("changed %q: %v", changedServices(done), err)
	}
	wantIn(t, "stderr", stderr.String(), "no service was changed")
}
