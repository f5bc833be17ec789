// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"testing"
)

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
	put1(t, client, "down/a", `{"Addr":"10.0.0.1:80","Metadata":{"status":"draining"}}`)
	put1(t, client, "down/b", `{"Addr":"10.0.0.2:80","Metadata":{"status":"draining","weight":3}}`)
	before := revisionOf(t, client)
	preview := func(name string, args ...string) {
		t.Helper()
		args = append([]string{"drain"}, append(args, "--dry-run")...)
		r := must(t, server.Endpoint(), args...)
		golden(t, name+".txt", r.stderr+r.stdout)
		golden(t, name+".json", must(t, server.Endpoint(), append(args, "-o", "json")...).stdout)
	}
	preview("drain-preview", "zoned", "a", "10.0.0.3:80")
	preview("drain-preview-already", "zoned", "d", "a")
	preview("drain-preview-plain", "plain", "b")
	preview("drain-preview-none-serving", "down", "a")
	preview("drain-preview-last", "zoned", "a", "b", "c", "--force")
	preview("drain-preview-all", "plain", "a", "b", "c", "--force")
	if revisionOf(t, client) != before {
		t.Error("a dry run wrote")
	}
	for i := range 60 { // of a zone, half of which drain, and one already; the other zone has few
		put1(t, client, fmt.Sprintf("large/%02d", i), fmt.Sprintf(`{"Addr":"10.0.1.%d:80","Metadata":{"zone":"eu-1","version":"v%d"}}`, i, i%2))
	}
	for i := range 4 {
		put1(t, client, fmt.Sprintf("large/b%d", i), fmt.Sprintf(`{"Addr":"10.0.2.%d:80","Metadata":{"zone":"eu-2","weight":3,"version":"v%d"}}`, i, i%2))
	}
	must(t, server.Endpoint(), "drain", "large", "00", "02")
	before = revisionOf(t, client)
	r := must(t, server.Endpoint(), "drain", "large", "-l", "version=v0", "--dry-run")
	golden(t, "drain-preview-large.txt", r.stderr+r.stdout)
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
