// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/timeline"
)

// noServe has history ask no rollcall serve.
const noServe = "--admin="

// fillHistory has everything happen to a service, from revision 2 on.
func fillHistory(t *testing.T, client *clientv3.Client) {
	t.Helper()
	grantAs(t, client, 0x1234abcd, 3600)
	grantAs(t, client, 0x1234abce, 3600)
	lives, ends := clientv3.WithLease(0x1234abcd), clientv3.WithLease(0x1234abce)
	put1(t, client, "shop/cart/a", `{"Addr":"10.0.0.1:80","Metadata":{"weight":1,"zone":"eu-1","started":"2020-03-04T09:00:00Z"}}`, lives)
	put1(t, client, "shop/cart/b/1", `{"Addr":"10.0.0.2:80"}`, ends)
	put1(t, client, "shop/cart/b/2", `{"Addr":"10.0.0.3:80"}`, ends)
	put1(t, client, "shop/cart/evil\x1b[2J", "{\"Addr\":\"10.0.0.8:80\",\"Metadata\":{\"note\":\"\u009b2J\u202eabc<b>\"}}")
	put1(t, client, "shop/cart/a", `{"Addr":"10.0.0.1:81","Metadata":{"weight":10,"version":"\u202ev2","started":"2020-03-04T09:00:00Z"}}`, lives)
	put1(t, client, "shop/cart/a", `{"Addr":"10.0.0.1:81","Metadata":{"weight":10,"status":"draining"}}`, lives)
	put1(t, client, "shop/cart/a", `{"Addr":"10.0.0.1:81","Metadata":{"weight":10}}`, lives)
	put1(t, client, "shop/cart/a", `{"Addr":"10.0.0.1:81","Metadata":{"weight":10}}`, lives)
	put1(t, client, "shop/cart/a", "\x1b]0;no JSON", lives)
	put1(t, client, "_grpc_config/shop/cart", `{"loadBalancingConfig":[{"round_robin":{}}]}`)
	if _, err := client.Revoke(t.Context(), 0x1234abce); err != nil {
		t.Fatal(err)
	}
	put1(t, client, "shop/cart/\xff", `{"Addr":"10.0.0.9:80","Metadata":{"status":"draining"}}`, lives)
	for _, key := range []string{"shop/cart/\xff", "shop/cart/a", "shop/cart/evil\x1b[2J", "_grpc_config/shop/cart"} {
		if _, err := client.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistoryGolden(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	fillHistory(t, client)
	times := regexp.MustCompile(`>\d{4}-\d\d-\d\d \d\d:\d\d:00`) // in the machine's zone
	show := func(name string, args ...string) {
		t.Helper()
		asTable := must(t, server.Endpoint(), append([]string{"history", "shop/cart"}, args...)...)
		asJSON := must(t, server.Endpoint(), append([]string{"history", "shop/cart", "-o", "json"}, args...)...)
		if strings.ContainsAny(asTable.stdout+asTable.stderr+asJSON.stdout, "\x1b\u009b\u202e\x7f") {
			t.Error("control characters went through")
		}
		golden(t, name+".txt", times.ReplaceAllString(asTable.stdout, ">2020-03-04 HH:00:00"))
		golden(t, name+".json", asJSON.stdout)
		golden(t, name+".stderr", asTable.stderr)
	}
	show("history", noServe)
	show("history-revision", noServe, "--revision", "14")
	show("history-since", noServe, "--since", "30m")
	if _, err := client.Compact(t.Context(), 14); err != nil {
		t.Fatal(err)
	}
	show("history-compacted", noServe)
	put1(t, client, "shop/cart/c", `{"Addr":"10.0.0.4:80"}`)
	show("history-nothing-new", noServe, "--revision", "19")

	r := rollcallAt(t, server.Endpoint(), "history", "no-such-service", noServe)
	if r.code != exitNotFound {
		t.Errorf("unknown service: exit %d, want %d", r.code, exitNotFound)
	}
	golden(t, "history-unknown.stderr", r.stderr)
}

// A rollcall serve tells times; one of another cluster does not.
func TestHistoryTimes(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	fillHistory(t, client)
	resp, err := client.Get(t.Context(), "any")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	list := revisionList{apiVersion, "RevisionList", resp.Header.ClusterId, []timeline.Point{
		{Revision: 3, Time: now.Add(-2 * time.Hour)}, {Revision: 11, Time: now.Add(-time.Hour)}, {Revision: 12, Time: now.Add(-time.Hour + time.Second)}, {Revision: 15, Time: now.Add(-time.Minute)},
	}}
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/revisions" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(list)
	}))
	defer fake.Close()
	admin := "--admin=" + fake.URL + "/" // as rollcall serve prints it
	var doc historyDocument
	r := must(t, server.Endpoint(), "history", "shop/cart", admin, "--since", "30m", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range doc.Events {
		got = append(got, fmt.Sprintf("%d %d %d", e.Revision, int(now.Sub(e.After).Minutes()), int(now.Sub(e.Before).Minutes())))
	}
	unbounded := int(now.Sub(time.Time{}).Minutes())
	want := []string{"13 59 1", "14 59 1", "15 59 1"}
	for revision := 16; revision <= 17; revision++ {
		want = append(want, fmt.Sprintf("%d 1 %d", revision, unbounded))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	wantIn(t, "stderr", r.stderr, "3 of the events may have happened more than 30m0s ago")

	list.Cluster++
	if r := rollcallAt(t, server.Endpoint(), "history", "shop/cart", admin); r.code != exitOther {
		t.Errorf("another cluster: exit %d, stderr %q", r.code, r.stderr)
	} else {
		wantIn(t, "stderr", r.stderr, "follows another etcd cluster")
	}
}

// serve notes the revisions that it sees, and history reads them.
func TestHistoryOfServe(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	put1(t, client, "t-clock/a", `{"Addr":"10.0.0.1:80"}`)
	s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "serve", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	var addr string
	eventually(t, "serve listens", func() bool {
		if found := regexp.MustCompile(`admin at http://(\S+);`).FindStringSubmatch(s.stderr.String()); found != nil {
			addr = found[1]
		}
		return addr != ""
	})
	awaitTime(t, server.Endpoint(), addr, "t-clock")
	s.interrupt()
	s.end(t)
}

// The page of dev does the same.
func TestHistoryOfDev(t *testing.T) {
	s := begin(t, nil, "dev", "--listen", "127.0.0.1:0")
	var found []string
	eventually(t, "dev is ready", func() bool {
		found = regexp.MustCompile(`ready at (\S+), .* page is at (\S+);`).FindStringSubmatch(s.stderr.String())
		return found != nil
	})
	etcd, page := found[1], found[2]
	put1(t, etcdClient(t, etcd), "t-clock/a", `{"Addr":"10.0.0.1:80"}`)
	awaitTime(t, etcd, page, "t-clock")
	s.interrupt()
	s.end(t)
}

// awaitTime waits until the only event of a service has a time.
func awaitTime(t *testing.T, etcd, admin, service string) {
	t.Helper()
	eventually(t, "the time of the event is known", func() bool {
		r := rollcallAt(t, etcd, "history", service, "--admin", admin, "-o", "json")
		var doc historyDocument
		return r.code == 0 && json.Unmarshal([]byte(r.stdout), &doc) == nil && len(doc.Events) == 1 && time.Since(doc.Events[0].Before) < time.Minute
	})
}

// TestHistoryOfNobody: nobody needs to be at the default address, but it is an error where the user has given one.
func TestHistoryOfNobody(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stderr: &stderr}
	a.dialTimeout = 10 * time.Second
	f := historyFlags{admin: "127.0.0.1:1"}
	if points, err := a.points(t.Context(), f, 1); points != nil || err != nil || stderr.Len() > 0 {
		t.Errorf("%v, %v, stderr %q, want nothing", points, err, &stderr)
	}
	f.asked = true
	if _, err := a.points(t.Context(), f, 1); err == nil || !strings.Contains(err.Error(), "is it running? see --admin") {
		t.Errorf("error %v", err)
	}
}

// TestHistoryTimeout: the history may take longer than it takes to connect, and no longer than is said.
func TestHistoryTimeout(t *testing.T) {
	server := freshEtcd(t)
	put1(t, etcdClient(t, server.Endpoint()), "shop/cart/a", `{"Addr":"10.0.0.1:80"}`)
	r := rollcallAt(t, server.Endpoint(), "history", "shop/cart", noServe, "--timeout", "1ns")
	if r.code != exitTimeout || !strings.Contains(r.stderr, "give a later --revision, or a longer --timeout") {
		t.Errorf("exit %d, want %d: %s", r.code, exitTimeout, r.stderr)
	}
}
