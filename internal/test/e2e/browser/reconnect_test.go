// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// gateway passes requests on to a site, and can end its streams.
type gateway struct {
	*httputil.ReverseProxy
	url string

	mu   sync.Mutex
	down bool // streams are answered with 502
	end  context.CancelFunc
}

func (g *gateway) set(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
	if g.end != nil {
		g.end()
	}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/live/") {
		g.ReverseProxy.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	g.mu.Lock()
	down := g.down
	g.end = cancel
	g.mu.Unlock()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+r.URL.RequestURI(), nil)
	if err != nil || down {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	request.Header.Set("Last-Event-ID", r.Header.Get("Last-Event-ID"))
	stream, err := http.DefaultClient.Do(request)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer stream.Body.Close()
	w.Header().Set("Content-Type", stream.Header.Get("Content-Type"))
	buf := make([]byte, 1<<16)
	for {
		n, err := stream.Body.Read(buf)
		_, _ = w.Write(buf[:n])
		w.(http.Flusher).Flush()
		if err != nil { // the answer ends as if it were complete: browsers log what is cut off
			_, _ = io.Copy(io.Discard, stream.Body)
			return
		}
	}
}

// TestReconnect: a page whose stream is refused for a while ends with each row once, and with none
// that has gone.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{ReverseProxy: httputil.NewSingleHostReverseProxy(to), url: s.url}
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	t.Cleanup(func() { g.set(true) })
	s.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	b := newTab(t, front.URL)
	b.expect(http.StatusBadGateway)
	b.expectLog("[object Event]") // htmx's words for a stream that broke
	b.visit("/service?name=shop")
	b.row("a", "serving")
	s.put("shop/b", `{"Addr":"10.0.0.2:1"}`)
	s.put("shop/c", `{"Addr":"10.0.0.3:1"}`)
	b.row("b", "serving")
	b.row("c", "serving")
	other := s.open("/service?name=shop") // which keeps the view
	g.set(true)
	b.shows("#connection", "Not connected")
	if _, err := s.client.Delete(t.Context(), "shop/c"); err != nil {
		t.Fatal(err)
	}
	other.row("c", "deleted")
	other.await("the row of what has gone goes", "!"+rowOf("c"))
	g.set(false)
	b.await("it is connected again", "document.querySelector('#connection').hidden")
	s.put("shop/d", `{"Addr":"10.0.0.4:1"}`)
	b.row("d", "serving")
	if got := eval[string](b, "[...document.querySelectorAll('#rows tr th')].map(e => e.innerText).join(' ')"); got != "a b d" {
		t.Errorf("the page has the rows %q, want a, b and d", got)
	}
}
