// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// TestWrites: an endpoint is drained and takes calls again by clicks, each with a question; the
// last that serves is asked about twice; a form that was not made for this browser does nothing.
func TestWrites(t *testing.T) {
	t.Parallel()
	s := newSite(t, "--console-writes")
	s.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	s.put("shop/b", `{"Addr":"10.0.0.2:1"}`)
	watcher, b := s.open("/service?name=shop"), s.open("/service?name=shop")
	b.click(`a[href*="id=a"][href*="do=drain"]`)
	b.shows("h1", "Drain a?")
	b.click("#cancel")
	b.row("a", "serving")
	b.click(`a[href*="id=a"][href*="do=drain"]`)
	b.shows("h1", "Drain a?")
	b.click("#confirm")
	b.row("a", "draining")
	watcher.row("a", "draining")

	b.expect(http.StatusConflict)
	b.click(`a[href*="id=b"][href*="do=drain"]`)
	b.shows("h1", "Drain b?")
	b.click("#confirm")
	b.shows("#problem", "Not done")
	watcher.row("b", "serving")
	b.shows("#confirm", "Drain it nevertheless")
	b.click("#confirm")
	b.row("b", "draining")
	watcher.shows("#summary", "Every endpoint is draining")
	b.click(`a[href*="id=a"][href*="do=undrain"]`)
	b.shows("#confirm", "Undrain it")
	b.click("#confirm")
	b.row("a", "serving")

	b.click(`a[href*="id=a"][href*="do=weight"]`)
	b.shows("h1", "Weight of a")
	b.fill("#weight", "7")
	b.click("#confirm")
	b.row("a", "7")
	b.visit("/config?service=shop")
	b.fill("#config", `{"loadBalancingConfig":[{"round_robin":{}}]}`)
	b.click("#sure")
	b.click("#confirm")
	watcher.shows("#config", "round_robin")

	b.expect(http.StatusForbidden)
	b.visit("/change?service=shop&id=a&do=drain")
	eval[bool](b, "document.querySelector('[name=csrf]').value = 'forged'; true")
	b.click("#confirm")
	b.shows("#problem", "not made for this browser")
	watcher.row("a", "serving")
}

// TestToken: without the token nothing is shown; with it, until the button that logs out.
func TestToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("a token for this test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "--console-token-file", file)
	s.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	b := openRefused(t, s.url, "/service?name=shop")
	b.shows("h1", "Log in")
	b.fill("#token", "a wrong token of this test")
	b.click("#login")
	b.shows("#problem", "token")
	b.fill("#token", "a token for this test")
	b.click("#login")
	b.row("a", "serving") // the page that was asked for
	b.click("#logout")
	b.shows("h1", "Log in")
}

// TestUsers: etcd's users see and change what their roles allow; else the page shows what etcd
// refuses.
func TestUsers(t *testing.T) {
	t.Parallel()
	need(t, chromium != nil, "chromium; to install it: apt-get install chromium")
	etcd := etcdtest.New(t, etcdtest.Options{})
	s := &site{t: t, etcd: etcd, client: etcd.Client(t)}
	s.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	s.put("shop/b", `{"Addr":"10.0.0.2:1"}`)
	s.put("pay/a", `{"Addr":"10.0.0.3:1"}`)
	auth := etcd.EnableAuth(t)
	auth.AddUser("reader", "reader's password", etcdtest.Read("shop/"))
	auth.AddUser("writer", "writer's password", etcdtest.ReadWrite("shop/"))
	url := serve(t, etcd, "--console-etcd-users", "--console-writes", "--xds", "")
	logIn := func(b *tab, user, password string) {
		b.shows("h1", "Log in")
		b.fill("#user", user)
		b.fill("#password", password)
		b.click("#login")
	}
	b := openRefused(t, url, "/service?name=shop")
	b.expect(http.StatusForbidden)
	logIn(b, "reader", "wrong")
	b.shows("#problem", "The name or the password is wrong")
	logIn(b, "reader", "reader's password")
	b.row("a", "serving")
	b.click(`a[href*="id=a"][href*="do=drain"]`)
	b.shows("h1", "Drain a?")
	b.click("#confirm")
	b.shows("#problem", "etcd refuses")
	b.visit("/service?name=pay")
	b.shows("#banner .denied", `"pay/" up to "pay0"`)
	b.visit("/")
	b.shows("#banner .denied", "all keys")

	w := openRefused(t, url, "/service?name=shop")
	logIn(w, "writer", "writer's password")
	w.row("a", "serving")
	w.click(`a[href*="id=a"][href*="do=drain"]`)
	w.shows("h1", "Drain a?")
	w.click("#confirm")
	w.row("a", "draining")
}

// openRefused opens a page that asks to log in first.
func openRefused(t *testing.T, url, path string) *tab {
	t.Helper()
	b := newTab(t, url)
	b.expect(http.StatusUnauthorized)
	b.visit(path)
	return b
}
