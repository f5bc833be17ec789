// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestPages: each page shows what etcd holds, without a stream.
func TestPages(t *testing.T) {
	b := newBench(t, Options{Clients: func() []Client {
		return []Client{
			{ID: "node-1", Peer: "10.1.1.1:1", UserAgent: "gRPC Go", Zone: "eu-1", Since: time.Now().Add(-time.Hour), Services: []string{"shop"}, State: "accepted",
				Sent: []Sent{{"ClusterLoadAssignment", "7", true}}},
			{ID: "node-2", Peer: "10.1.1.2:1", Services: []string{"pay"}, State: "rejected", Reason: "3s ago: bad weight"},
		}
	}})
	lease := b.lease(60)
	started := time.Now().Add(-4 * time.Hour).UTC().Format(time.RFC3339)
	b.put("shop/a", `{"Addr":"10.0.0.1:1","Metadata":{"zone":"eu-1","weight":7,"version":"v2","host":"box","started":"`+started+`"}}`, clientv3.WithLease(lease))
	b.put("shop/b", `{"Addr":"10.0.0.2:1","Metadata":{"status":"draining"}}`)
	b.put("shop/c", `{"Addr":"nowhere"}`)
	b.put("shop/d", `broken`)
	b.put("pay/a", `{"Addr":"10.0.0.3:1"}`)
	b.put("_grpc_config/shop", `{"loadBalancingConfig":[{"round_robin":{}}]}`)

	services := b.get("/")
	wantIn(t, services.body, ">shop</a>", ">pay</a>", "2 services", "1 draining", "2 left out by clients", "<td>eu-1</td>")
	wantIn(t, b.get("/?prefix=pa").body, ">pay</a>", "1 service that start")
	wantNotIn(t, b.get("/?prefix=pa").body, ">shop</a>")

	eventually(t, "the lease is looked up", func() bool { return strings.Contains(b.get("/service?name=shop").body, "/60s<") })
	service := b.get("/service?name=shop").body
	wantIn(t, service, ">a</th>", "10.0.0.1:1", ">7</td>", ">eu-1</td>", ">v2</td>", "host=box", ">4h", "no lease",
		`<span class="status draining">draining</span>`, `<span class="status invalid">invalid</span>`, `<span class="status disallowed">disallowed</span>`,
		"4 instances: 1 serving, 1 draining, <strong>2 left out", "round_robin", "node-1", "ClusterLoadAssignment 7 (accepted)")
	wantNotIn(t, service, "node-2", "do=drain") // of another service; it only reads
	filtered := b.get("/service?name=shop&q=10.0.0.2").body
	wantIn(t, filtered, ">b</th>", "1 instance contains")
	wantNotIn(t, filtered, ">a</th>")

	wantIn(t, b.get("/history?name=shop").body, `<span class="status serving">came</span>`, "10.0.0.1:1", "service config")
	wantIn(t, b.get("/cluster").body, `<span class="status ok">ok</span>`, "leader", "<dt>Keys</dt><dd>6</dd>")
	wantIn(t, b.get("/clients").body, "node-1", "node-2", "bad weight", "1 of them have not accepted")
	wantNotIn(t, b.get("/clients?q=node-2").body, ">node-1<")

	for path, status := range map[string]int{
		"/service": 400, "/service?name=//": 400, "/?page=0": 400, "/?page=x": 400, "/nothing": 404, "/assets/nothing.js": 404,
		"/change": 403, "/service?name=shop;x": 400, "/service?name=none": 200,
	} {
		if got := b.get(path).status; got != status {
			t.Errorf("%s answers %d, want %d", path, got, status)
		}
	}
}

// TestHeaders: nothing is run, loaded or kept that is not the console's own.
func TestHeaders(t *testing.T) {
	b := newBench(t, Options{Writes: true})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	total := 0
	for _, path := range []string{"/", "/service?name=shop", "/cluster", "/history?name=shop", "/change?service=shop&id=a&do=drain", "/config?service=shop", "/nothing",
		"/assets/console.css", "/assets/console.js", "/assets/htmx-2.0.11.min.js", "/assets/htmx-ext-sse-2.2.4.min.js", "/assets/icon.svg"} {
		a := b.get(path)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if strings.HasPrefix(path, "/assets/") {
			total += len(zip([]byte(a.body)))
			if r := b.request(http.MethodGet, path, nil); true {
				r.Header.Set("If-None-Match", a.header.Get("ETag"))
				if got := b.do(r).status; got != http.StatusNotModified {
					t.Errorf("%s is sent again: %d", path, got)
				}
			}
			continue
		}
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s may be kept: %q", path, got)
		}
		wantNotIn(t, a.body, "<style", " style=", "javascript:", "<script>", "onclick", "http://", "https://")
	}
	if total > 150<<10 {
		t.Errorf("the assets have %d bytes", total)
	}
}

// TestHostileText: what is in etcd is text, wherever it is shown.
func TestHostileText(t *testing.T) {
	b := newBench(t, Options{Writes: true})
	const evil = `<script>alert(1)</script>"'&<hx-partial>` + "\u202e\x1b[2J\r\ndata: x"
	name := "svc" + evil
	b.put(name+"/id"+evil, fmt.Sprintf(`{"Addr":"10.0.0.1:1","Metadata":{"zone":%q,"version":"\u202e<b>","x<y":"<img src=x onerror=alert(1)>"}}`, "z<i>"))
	b.put(name+"/\xff"+evil, "\xff<u>")
	b.put("_grpc_config/"+name, "<svg onload=alert(1)>\r\nevent: end")
	query := url.QueryEscape(name)
	id := url.QueryEscape("id" + evil)
	reader := b.open("/service?name=" + query)
	b.put(name+"/later"+evil, `{"Addr":"10.0.0.2:1"}`)
	reader.wait(t, "later")
	for _, text := range []string{b.get("/").body, b.get("/service?name=" + query).body, b.get("/history?name=" + query).body, reader.String(),
		b.get("/?prefix=" + query).body, b.get("/service?name=" + query + "&q=" + id).body,
		b.get("/change?do=weight&service=" + query + "&id=" + id + "&weight=" + id).body, b.get("/config?service=" + query).body} {
		wantIn(t, text, "script")
		wantNotIn(t, text, "<script>alert", "<hx-partial", "<img", "<svg", "<i>", "<b>", "<u>", "\u202e", "\x1b", "\r", "\xff")
	}
	wantNotIn(t, reader.String(), "\ndata: x", "\nevent: end")
	// They can be changed like any other; the ids have a "/", so that each is the last of a service within this one.
	if a := b.submit("/change?do=drain&service="+query+"&id="+id, "/change?do=drain&service="+query+"&id="+id, url.Values{"last": {"yes"}}); a.status != http.StatusSeeOther {
		t.Errorf("drained with %d: %s", a.status, a.body)
	}
}

// TestFiveThousandServices: the list stays quick, and is filtered and divided on the server.
func TestFiveThousandServices(t *testing.T) {
	b := newBench(t, Options{})
	const services = 5000
	for from := 0; from < services; from += 100 {
		var ops []clientv3.Op
		for i := from; i < from+100; i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("team-%02d/service-%04d/a", i%50, i), `{"Addr":"10.0.0.1:1","Metadata":{"zone":"eu-1"}}`))
		}
		if _, err := b.client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are listed", func() bool { return strings.Contains(b.get("/").body, "5,000 services") })
	page := b.get("/")
	if rows := strings.Count(page.body, "<tr id="); rows != servicesPerPage {
		t.Errorf("a page has %d rows", rows)
	}
	if zipped := len(zip([]byte(page.body))); zipped > 20<<10 {
		t.Errorf("a page has %d bytes", zipped)
	}
	for path, want := range map[string]string{
		"/?prefix=team-07/": "100 services that start with", "/?prefix=team-07/service-0107": "1 service that start with", "/?page=50": "4,901 to 5,000, page 50 of 50",
		"/?page=51": "Nothing to list here", "/?prefix=zzz": "0 services that start with",
	} {
		begun := time.Now()
		a := b.get(path)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s took %v", path, took)
		}
		wantIn(t, a.body, want)
	}
}

// TestLongValues: of what is very long in etcd, pages show the beginning.
func TestLongValues(t *testing.T) {
	b := newBench(t, Options{})
	long := strings.Repeat("x", 100_000)
	fields := make([]string, 5000)
	for i := range fields {
		fields[i] = fmt.Sprintf(`"field-%04d":%d`, i, i)
	}
	b.put("shop/a", fmt.Sprintf(`{"Addr":"10.0.0.1:1","Metadata":{"zone":%q,"version":%q,"note":%q,"last":"seen"}}`, long, long, long))
	b.put("shop/b", `{"Addr":"10.0.0.2:1","Metadata":{`+strings.Join(fields, ",")+`}}`)
	b.put("shop/"+long, `{"Addr":"`+long+`","Metadata":{"`+long+`":1}}`)
	b.put("shop/b", `{"Addr":"10.0.0.2:1","Metadata":{}}`)
	b.put("shop/b", `{"Addr":"10.0.0.2:1","Metadata":{`+strings.Join(fields, ",")+`}}`)
	service := b.get("/service?name=shop").body
	wantIn(t, service, strings.Repeat("x", 150), "last=seen", "field-0001=1", "more</span>")
	wantNotIn(t, service, "field-4999")
	for path, most := range map[string]int{"/": 10_000, "/service?name=shop": 20_000, "/history?name=shop": 10_000} {
		if got := len(b.get(path).body); got > most {
			t.Errorf("%s has %d bytes, want at most %d", path, got, most)
		}
	}
}

// TestHistoryFollows: an open history shows what happens later.
func TestHistoryFollows(t *testing.T) {
	b := newBench(t, Options{})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	page := b.open("/history?name=shop")
	b.put("shop/later", `{"Addr":"10.0.0.2:1"}`)
	page.wait(t, ">later</th>")
}
