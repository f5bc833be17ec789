// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEdit(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	grant, err := client.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Revoke(t.Context(), grant.ID)
	put1(t, client, "t-edit/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-1","big":12345678901234567890,"tags":["x"]}}`, clientv3.WithLease(grant.ID))
	put1(t, client, "t-edit/b", `{"Addr":"10.0.0.2:80"}`)
	put1(t, client, "t-edit/twin", `{"Addr":"10.0.0.2:80"}`)
	put1(t, client, "t-edit/text", `{"Addr":"10.0.0.3:80","Metadata":"text"}`)
	put1(t, client, "t-edit/garbage", `garbage`)
	is := func(id, want string) {
		t.Helper()
		if got := valueOf(t, client, "t-edit/"+id); got != want {
			t.Errorf("%s = %s, want %s", id, got, want)
		}
	}

	must(t, endpoint, "weight", "t-edit", "a", "10")
	is("a", `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"big":12345678901234567890,"tags":["x"],"weight":10,"zone":"eu-1"}}`)
	must(t, endpoint, "drain", "t-edit", "a")
	must(t, endpoint, "drain", "t-edit", "a")
	is("a", `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"big":12345678901234567890,"status":"draining","tags":["x"],"weight":10,"zone":"eu-1"}}`)
	if resp, err := client.Get(t.Context(), "t-edit/a"); err != nil || resp.Kvs[0].Lease != int64(grant.ID) {
		t.Errorf("the key has left its lease: %v, %v", resp, err)
	}
	wantIn(t, "resolve", must(t, endpoint, "resolve", "t-edit").stdout, "draining")
	wantIn(t, "resolve", must(t, endpoint, "resolve", "t-edit?status=draining").stdout, "10.0.0.1:80  t-edit/a")
	must(t, endpoint, "undrain", "t-edit", "a")
	is("a", `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"big":12345678901234567890,"tags":["x"],"weight":10,"zone":"eu-1"}}`)

	// An address is all that have it, an id goes first, and none is written twice.
	must(t, endpoint, "drain", "t-edit", "10.0.0.2:80", "b")
	is("b", `{"Op":0,"Addr":"10.0.0.2:80","Metadata":{"status":"draining"}}`)
	is("twin", `{"Op":0,"Addr":"10.0.0.2:80","Metadata":{"status":"draining"}}`)
	must(t, endpoint, "undrain", "t-edit", "10.0.0.2:80")
	is("twin", `{"Op":0,"Addr":"10.0.0.2:80","Metadata":null}`)

	// What others wrote beside it stays, and names match in any case, as Decode reads them.
	put1(t, client, "t-edit/c", `{"owner":"team-a","addr":"10.0.0.4:80","METADATA":{"zone":"eu-1"}}`)
	must(t, endpoint, "weight", "t-edit", "c", "3")
	is("c", `{"Addr":"10.0.0.4:80","Metadata":{"weight":3,"zone":"eu-1"},"Op":0,"owner":"team-a"}`)
	must(t, endpoint, "rm", "t-edit", "c")

	// All or none.
	before := revisionOf(t, client)
	for _, row := range []struct {
		name, want string
		code       int
	}{
		{"garbage", `"t-edit/garbage" cannot be edited: value is not an endpoint`, exitOther},
		{"text", `"t-edit/text" cannot be edited`, exitOther},
		{"missing", `neither an id nor an address "missing"`, exitNotFound},
	} {
		r := rollcallAt(t, endpoint, "drain", "t-edit", "a", row.name)
		if r.code != row.code || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", row.name, r.code, r.stdout, r.stderr)
		}
		wantIn(t, "stderr", r.stderr, row.want)
	}
	if after := revisionOf(t, client); after != before {
		t.Error("a part was written")
	}

	r := must(t, endpoint, "drain", "t-edit", "a", "b", "twin")
	wantIn(t, "stderr", r.stderr, `3 endpoints were changed; 1 of 4 endpoints of service "t-edit" are serving`) // "text" has no status, and serves
	must(t, endpoint, "rm", "t-edit", "text", "garbage", "--yes")                                               // "text" is the last that is serving
	r = must(t, endpoint, "drain", "t-edit", "a", "--force")
	wantIn(t, "stderr", r.stderr, "every endpoint", "rather than none")
}
