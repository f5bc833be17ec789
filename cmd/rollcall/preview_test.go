// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestPreview(t *testing.T) {
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
		if strings.HasPrefix(name, "drain") {
			args = append([]string{"drain"}, args...)
		}
		args = append(args, "--dry-run")
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
	preview("undrain-preview", "undrain", "zoned", "d", "a")
	preview("weight-preview", "weight", "zoned", "-l", "zone=eu-1", "2")
	if revisionOf(t, client) != before {
		t.Error("a dry run wrote")
	}
	put1(t, client, "_grpc_config/zoned", `{"loadBalancingConfig":[{"round_robin":{}}]}`)
	preview("weight-preview-alike", "weight", "zoned", "b", "7")
	put1(t, client, "_grpc_config/zoned", `{"loadBalancingConfig":[{"rollcall_weighted":{}}]}`)
	preview("weight-preview-weighted", "weight", "zoned", "b", "7")
	put1(t, client, "_grpc_config/zoned", `{"loadBalancingConfig":[{"rollcall_zone":{"zone":"eu-1","childPolicy":[{"rollcall_weighted":{}}]}}]}`)
	preview("weight-preview-zone", "weight", "zoned", "b", "7")
	preview("undrain-preview-all", "undrain", "down", "a")
	for _, args := range [][]string{{"weight", "zoned", "e", "2"}, {"undrain", "zoned", "a", "e"}, {"drain", "zoned", "a", "e"}} {
		dry := rollcallAt(t, server.Endpoint(), append(args, "--dry-run")...)
		if wet := rollcallAt(t, server.Endpoint(), args...); dry.code != wet.code || dry.stderr != wet.stderr || dry.code == 0 {
			t.Errorf("%v: exit %d, %q; with --dry-run %d, %q", args, wet.code, wet.stderr, dry.code, dry.stderr)
		}
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
