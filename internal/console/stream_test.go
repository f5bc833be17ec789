// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestEvents: joins, drains, expiries and deletions come to an open page, each with what it was.
func TestEvents(t *testing.T) {
	b := newBench(t, Options{})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	page, list := b.open("/service?name=shop"), b.open("/")

	lease := b.lease(60)
	b.put("shop/b", `{"Addr":"10.0.0.2:1"}`, clientv3.WithLease(lease))
	page.wait(t, `<tr id="`+rowID("shop/b")+`" class="serving came"><th scope="row">b</th>`)
	list.wait(t, `<td class="n">2</td><td class="n">2</td>`)

	b.put("shop/a", `{"Addr":"10.0.0.1:1","Metadata":{"status":"draining"}}`)
	page.wait(t, `<tr id="`+rowID("shop/a")+`" class="draining changed" hx-swap-oob="true">`)
	page.wait(t, "is draining")

	if _, err := b.client.Revoke(t.Context(), lease); err != nil { // as etcd does when it ends
		t.Fatal(err)
	}
	page.wait(t, `<span class="status gone">expired (its lease is gone)</span>`)
	page.wait(t, `<span class="mark gone">b</span> expired (its lease is gone)</li>`)
	page.wait(t, `<tr id="`+rowID("shop/b")+`" hx-swap-oob="delete"></tr>`)

	if _, err := b.client.Delete(t.Context(), "shop/a"); err != nil {
		t.Fatal(err)
	}
	page.wait(t, "left (it was draining)")
	list.wait(t, `<tr id="`+rowID("shop")+`" hx-swap-oob="delete"></tr>`)
	b.put("_grpc_config/shop", `{}`)
	page.wait(t, "{}</pre>")
}

// TestStaleBanner: while etcd cannot be reached a page says so, since when and why, and then that
// it is over. A new page is shown meanwhile.
func TestStaleBanner(t *testing.T) {
	b := newBench(t, Options{})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	page, list := b.open("/service?name=shop"), b.open("/")
	b.etcd.Member(0).Kill()
	for _, r := range []*reader{page, list} {
		r.wait(t, "Out of date since <time datetime=")
	}
	wantIn(t, b.get("/service?name=shop").body, "Out of date since", ">a</th>", "Cause: ")
	wantIn(t, b.get("/").body, "Out of date since", ">shop</a>")
	wantIn(t, b.get("/service?name=other").body, "Waiting for etcd")
	wantIn(t, b.get("/history?name=shop").body, "The history has not been read yet")
	wantIn(t, b.get("/cluster").body, `<span class="status bad">bad</span>`)
	b.etcd.Member(0).Start()
	for _, r := range []*reader{page, list} {
		r.wait(t, "Up to date again since")
	}
}

// TestSlowReaderIsDropped: one that never reads holds nothing for long.
func TestSlowReaderIsDropped(t *testing.T) {
	b := newBench(t, Options{})
	b.console.writeTimeout = 300 * time.Millisecond
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET /live/service?name=shop HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	eventually(t, "it is connected", func() bool { return b.console.streams.Load() == 1 })
	quick := b.open("/service?name=shop")
	long := strings.Repeat("x", 100_000)
	for i := 0; b.console.streams.Load() == 2; i++ {
		if i == 600 {
			t.Fatal("it is not dropped")
		}
		b.put("_grpc_config/shop", fmt.Sprintf(`{"n":"%d","long":%q}`, i, long)) // which pages show in full
		time.Sleep(50 * time.Millisecond)
	}
	b.put("shop/z", `{"Addr":"10.0.0.9:1"}`)
	quick.wait(t, ">z</th>")
}

// TestSlowRequest: a request that does not end is dropped, whatever it asks for and before anybody
// is asked who he is; a page that is followed stays open.
func TestSlowRequest(t *testing.T) {
	b := newBench(t, Options{})
	b.console.requestTimeout = 300 * time.Millisecond
	page := b.open("/service?name=shop")
	for _, path := range []string{"/login", "/live/x", "/live/service?name=shop"} {
		conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nx", path)
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("POST %s: %v", path, err)
		}
	}
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	page.wait(t, ">a</th>")
}

// TestStreamsAreBounded: those beyond are told so, and a place that is left is free again.
func TestStreamsAreBounded(t *testing.T) {
	b := newBench(t, Options{MaxStreams: 2})
	first := b.open("/")
	b.open("/cluster")
	if got := b.get("/live/?since=1").status; got != http.StatusServiceUnavailable {
		t.Errorf("a third stream is answered with %d", got)
	}
	first.cancel()
	<-first.done
	eventually(t, "the place is free", func() bool { return b.console.streams.Load() == 1 })
	b.open("/")
}

// TestReconnect: a reader that comes back is sent what it has missed, and nothing else.
func TestReconnect(t *testing.T) {
	b := newBench(t, Options{})
	for i := range 50 {
		b.put(fmt.Sprintf("shop/%02d", i), `{"Addr":"10.0.0.1:1"}`)
	}
	body := b.get("/service?name=shop").body
	address := html.UnescapeString(liveAddress.FindStringSubmatch(body)[1])
	b.put("shop/missed", `{"Addr":"10.0.0.2:1"}`)
	eventually(t, "it is shown", func() bool { return strings.Contains(b.get("/service?name=shop").body, "missed") })
	r := b.request(http.MethodGet, address, nil)
	resp, err := b.browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf, text := make([]byte, 1<<16), ""
	for !strings.Contains(text, "missed") {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		text += string(buf[:n])
	}
	wantNotIn(t, text, ">01</th>")
}
