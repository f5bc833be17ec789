// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// fillZones has endpoints of two zones come, change and go.
func fillZones(t *testing.T, client *clientv3.Client) {
	t.Helper()
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-1"}}`)                     // revision 2
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-2"}}`)                     // 3
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-2"}}`)                     // 4
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-2","status":"draining"}}`) // 5
	if _, err := client.Delete(t.Context(), "shop/b"); err != nil {                                    // 6
		t.Fatal(err)
	}
	put1(t, client, "shop/evil\x1b", `{"Addr":"10.0.0.3:80"}`)                    // 7
	put1(t, client, "_grpc_config/shop", `{"loadBalancingPolicy":"round_robin"}`) // 8
	put1(t, client, "shop/c", "garbage")                                          // 9
}

// A history of some endpoints has those that are gone; a name that nothing in it has is an error.
func TestHistoryOfEndpoints(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	fillZones(t, client)
	for _, row := range []struct{ args, want string }{
		{"", "[2 3 4 5 6 7 8 9]"},
		{"a", "[2 4]"},
		{"b", "[3 5 6]"},
		{"10.0.0.2:80", "[3 5 6]"},
		{"a c", "[2 4 9]"},
		{`evil\x1b`, "[7]"},
		{"-l zone=eu-1", "[2 4]"}, // it left the zone
		{"-l zone=eu-2 -l status=draining", "[5 6]"},
		{"b --revision 6", "[6]"},
		{"a --revision 6", "[]"}, // it is there, and nothing has happened to it
		{"a -- b", "[2 3 4 5 6]"},
	} {
		args := append([]string{"history", "shop", noServe, "-o", "json"}, strings.Fields(row.args)...)
		var doc historyDocument
		if err := json.Unmarshal([]byte(must(t, server.Endpoint(), args...).stdout), &doc); err != nil {
			t.Fatal(err)
		}
		revisions := []int64{}
		for _, e := range doc.Events {
			revisions = append(revisions, e.Revision)
		}
		if got := fmt.Sprint(revisions); got != row.want {
			t.Errorf("history of %q: revisions %s, want %s", row.args, got, row.want)
		}
	}
	for _, row := range []struct{ args, want string }{
		{"blue", `neither an id nor an address "blue" at revision 9, nor had it since revision 1`},
		{"a blue", `"blue"`},      // beside one that is known
		{"bb", "did you mean b?"}, // which is gone
		{"shop/a", "did you mean a?"},
		{"-l zone=eu-3", "has no endpoint with zone=eu-3 at revision 9, nor had it since"},
	} {
		r := rollcallAt(t, server.Endpoint(), append([]string{"history", "shop", noServe}, strings.Fields(row.args)...)...)
		if r.code != exitNotFound || r.stdout != "" {
			t.Errorf("history of %q: exit %d, stdout %q", row.args, r.code, r.stdout)
		}
		wantIn(t, "stderr", r.stderr, row.want)
	}
	for _, key := range []string{"shop/a", "shop/evil\x1b", "shop/c"} {
		if _, err := client.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	r := rollcallAt(t, server.Endpoint(), "history", "shop", "aa", noServe)
	if wantIn(t, "stderr", r.stderr, `has neither an id nor an address "aa"`, "did you mean a?"); r.code != exitNotFound {
		t.Errorf("of a service that is gone: exit %d", r.code)
	}
}

// watch shows some endpoints alone, those that come later too.
func TestWatchOfEndpoints(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-1"}}`)
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-2"}}`)
	env := []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}
	named := begin(t, env, "watch", "shop", "a", "10.0.0.3:80")
	selected := begin(t, env, "watch", "shop", "-l", "zone=eu-2", "-o", "json")
	all := begin(t, env, "watch", "shop")
	eventually(t, "all follow", func() bool {
		return strings.Contains(named.stderr.String(), "endpoints now: 1") && strings.Contains(all.stdout.String(), "= b") && selected.stdout.String() != ""
	})
	step := func(what string, by ...*session) { // each has shown it: else two changes may be shown as one
		t.Helper()
		for _, s := range by {
			eventually(t, what, func() bool { return strings.Contains(s.stdout.String()+s.stderr.String(), what) })
		}
	}
	put1(t, client, "shop/c", `{"Addr":"10.0.0.3:80"}`)
	step("+ c", all, named)
	put1(t, client, "shop/d", `garbage`)
	step("invalid \"shop/d\"", all)
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-1"}}`) // it leaves the zone
	step("~ b", all)
	step(`"zone":"eu-1"`, selected)
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-2"}}`) // it comes
	step("~ a", all, named)
	step(`"revision":7`, selected)
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"zone":"eu-3"}}`)
	step("zone: eu-1 -> eu-3", all)
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-2","version":"last"}}`)
	step("last", all, named, selected)
	var ids []string
	for i, line := range strings.Split(strings.TrimSpace(selected.stdout.String()), "\n") {
		var list instanceList
		var event struct{ Instance struct{ ID string } }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := json.Unmarshal([]byte(line), &list); err != nil || len(list.Instances) != 1 {
				t.Fatalf("the first line is %s", line)
			}
			event.Instance.ID = list.Instances[0].ID
		}
		ids = append(ids, event.Instance.ID)
	}
	if fmt.Sprint(ids) != "[b b a a]" {
		t.Errorf("of the zone are shown %v", ids)
	}
	for _, not := range []string{" b ", "shop/d"} {
		if strings.Contains(named.stdout.String()+named.stderr.String(), not) {
			t.Errorf("of a and c, shown is\n%s%s", named.stderr.String(), named.stdout.String())
		}
	}
	wantIn(t, "stdout", named.stdout.String(), "= a", "+ c", "~ a")
	for _, s := range []*session{named, selected, all} {
		s.interrupt()
		s.end(t)
	}
}

// wait counts some endpoints alone.
func TestWaitForEndpoints(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"version":"v1"}}`)
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"version":"v2","status":"draining"}}`)
	put1(t, client, "shop/c", `garbage`)
	for _, row := range []struct {
		args, want string
		code       int
	}{
		{"-l version=v2", " 1 0 ", 0},
		{"a b --count 2", " 2 1 ", 0},
		{"10.0.0.2:80 --gone", `what is asked for of service "shop" to be gone; it has 1 key`, exitTimeout},
		{"-l version=v2 --serving", `1 serving endpoint of what is asked for of service "shop"; it has 0`, exitTimeout},
		{"c --gone", "it has 1 key", exitTimeout},
		{"d --gone", `neither an id nor an address "d"`, 0},
		{"-l version=v3", "has no endpoint with version=v3", exitTimeout},
	} {
		r := rollcallAt(t, server.Endpoint(), append([]string{"wait", "shop", "--timeout", "200ms"}, strings.Fields(row.args)...)...)
		text := strings.Join(strings.Fields(r.stderr+r.stdout), " ")
		if r.code != row.code || !strings.Contains(text, row.want) {
			t.Errorf("wait %s: exit %d, %q; want %d, %q", row.args, r.code, text, row.code, row.want)
		}
	}
	w := begin(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "wait", "shop", "-l", "version=v2", "--serving", "--count", "2")
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"version":"v2"}}`)
	put1(t, client, "shop/d", `{"Addr":"10.0.0.4:80","Metadata":{"version":"v2"}}`)
	if code := w.end(t); code != 0 {
		t.Errorf("wait for two of a version: exit %d", code)
	}
}

// Commands that go on without a service ask whether another one was meant.
func TestLikeServices(t *testing.T) {
	server := freshEtcd(t)
	put1(t, etcdClient(t, server.Endpoint()), "checkout/a", `{"Addr":"10.0.0.1:80"}`)
	for _, row := range []struct{ args, want string }{
		{"chekout", `service "chekout" has no key; did you mean checkout?`},
		{"chekout -o json", `service "chekout" has no key; did you mean checkout?`},
		{"checkout aa", `neither an id nor an address "aa" at revision 2; did you mean a?`},
		{"checkout -l zone=eu-1", "has no endpoint with zone=eu-1"},
	} {
		w := begin(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, append([]string{"watch"}, strings.Fields(row.args)...)...)
		eventually(t, "watch tells "+row.want, func() bool { return strings.Contains(w.stderr.String(), row.want) })
		w.interrupt()
		w.end(t)
	}
	r := rollcallAt(t, server.Endpoint(), "wait", "chekout", "--timeout", "100ms")
	if r.code != exitTimeout {
		t.Errorf("wait: exit %d", r.code)
	}
	wantIn(t, "stderr of wait", r.stderr, `service "chekout" has no key; did you mean checkout?`)
	put1(t, etcdClient(t, server.Endpoint()), "checkouts/a", `{"Addr":"10.0.0.2:80"}`)
	if r := rollcallAt(t, server.Endpoint(), "wait", "checkout", "--count", "2", "--timeout", "100ms"); r.code != exitTimeout || strings.Contains(r.stderr, "did you mean") {
		t.Errorf("wait for more of a service: exit %d, %q", r.code, r.stderr)
	}
	r = rollcallAt(t, server.Endpoint(), "doctor", "chekout", "checkout", "--no-dial")
	wantIn(t, "stderr of doctor", r.stderr, `service "chekout" has no key; did you mean checkout`)
	if strings.Contains(r.stderr, `service "checkout"`) {
		t.Errorf("doctor of a service that is there: %q", r.stderr)
	}
	r = rollcallAt(t, server.Endpoint(), "wait", "chekout", "--gone")
	if wantIn(t, "stderr of wait --gone", r.stderr, "did you mean checkout"); r.code != 0 {
		t.Errorf("wait --gone: exit %d", r.code)
	}
}
