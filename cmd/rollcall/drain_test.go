// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/rollcall-grpc/rollcall"
)

func TestShareCalls(t *testing.T) {
	at := func(id, zone string, weight int) *rollcall.Instance {
		return &rollcall.Instance{Key: "s/" + id, Addr: id + ":1", Metadata: fmt.Appendf(nil, `{"zone":%q,"weight":%d}`, zone, weight)}
	}
	a, b, c := at("a", "x", 2), at("b", "x", 1), at("c", "y", 1)
	for _, row := range []struct {
		name          string
		before, after []*rollcall.Instance
		moved         float64
		want          []callShare // of a, b and c: shares alone
	}{
		{"one of three", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{b, c}, 0.5, []callShare{
			{Before: 0.5, ZoneBefore: 2. / 3}, {Before: 0.25, After: 0.5, ZoneBefore: 1. / 3, ZoneAfter: 1}, {Before: 0.25, After: 0.5, ZoneBefore: 1, ZoneAfter: 1}}},
		{"the last of a zone", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{a, b}, 0.25, []callShare{
			{Before: 0.5, After: 2. / 3, ZoneBefore: 2. / 3, ZoneAfter: 2. / 3}, {Before: 0.25, After: 1. / 3, ZoneBefore: 1. / 3, ZoneAfter: 1. / 3}, {Before: 0.25, ZoneBefore: 1}}},
		{"all: they are called nevertheless", []*rollcall.Instance{a, c}, nil, 0, []callShare{
			{Before: 2. / 3, After: 2. / 3, ZoneBefore: 1, ZoneAfter: 1}, {Before: 1. / 3, After: 1. / 3, ZoneBefore: 1, ZoneAfter: 1}}},
		{"another at the same address takes over", []*rollcall.Instance{a}, []*rollcall.Instance{c}, 1, []callShare{
			{Before: 1, ZoneBefore: 1}, {After: 1, ZoneAfter: 1}}},
		{"nobody", nil, nil, 0, nil},
	} {
		rows, moved := shareCalls(row.before, row.after, nil)
		same := slices.EqualFunc(rows, row.want, func(got, want callShare) bool {
			return near(got.Before, want.Before) && near(got.After, want.After) && near(got.ZoneBefore, want.ZoneBefore) && near(got.ZoneAfter, want.ZoneAfter)
		})
		if !same || !near(moved, row.moved) {
			t.Errorf("%s: moved %v, want %v; shares\n%+v, want\n%+v", row.name, moved, row.moved, rows, row.want)
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestDrainPreview(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "zoned/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-1","weight":2}}`)
	put1(t, client, "zoned/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-1"}}`)
	put1(t, client, "zoned/c", `{"Addr":"10.0.0.3:80","Metadata":{"zone":"eu-2"}}`)
	put1(t, client, "zoned/d", `{"Addr":"10.0.0.4:80","Metadata":{"zone":"eu-2","status":"draining"}}`)
	put1(t, client, "zoned/e", `garbage`)
	put1(t, client, "plain/a", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "plain/b", `{"Addr":"10.0.0.1:80"}`) // is called rather than a
	put1(t, client, "plain/c", `{"Addr":"10.0.0.2:80","Metadata":{"weight":3}}`)
	before := revisionOf(t, client)
	preview := func(name string, args ...string) {
		t.Helper()
		args = append([]string{"drain"}, append(args, "--dry-run")...)
		r := must(t, server.Endpoint(), args...)
		golden(t, name+".txt", r.stderr+r.stdout)
		golden(t, name+".json", must(t, server.Endpoint(), append(args, "-o", "json")...).stdout)
	}
	preview("drain-preview", "zoned", "a", "10.0.0.3:80")
	preview("drain-preview-plain", "plain", "b")
	preview("drain-preview-all", "plain", "a", "b", "c", "--force")
	if revisionOf(t, client) != before {
		t.Error("a dry run wrote")
	}
	for _, args := range [][]string{{"zoned", "a", "b", "c"}, {"zoned", "a", "b", "c", "--dry-run"}} {
		r := rollcallAt(t, server.Endpoint(), append([]string{"drain"}, args...)...)
		if r.code != exitOther || r.stdout != "" {
			t.Errorf("drain %v: exit %d, stdout %q", args, r.code, r.stdout)
		}
		wantIn(t, "stderr", r.stderr, `no other endpoint of service "zoned" is serving`, "--force")
	}
	if r := rollcallAt(t, server.Endpoint(), "drain", "zoned", "x", "--dry-run"); r.code != exitNotFound {
		t.Errorf("exit %d, want %d", r.code, exitNotFound)
	}
	if revisionOf(t, client) != before {
		t.Error("what was refused was written")
	}
	must(t, server.Endpoint(), "drain", "zoned", "a", "b", "c", "--force")
	must(t, server.Endpoint(), "drain", "zoned", "d") // none is serving: there is none to lose
}
