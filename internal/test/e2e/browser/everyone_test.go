// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// newShowcase returns a site that shows a bit of everything, and its pages.
func newShowcase(t *testing.T) (s *site, pages map[string]string) {
	s = newSite(t, "--console-writes")
	for i := range 12 {
		zone, version := []string{"eu-1", "eu-2", "eu-3"}[i%3], "1.14."+fmt.Sprint(2+i/9)
		value := fmt.Sprintf(`{"Addr":"10.0.%d.%d:50051","Metadata":{"zone":%q,"version":%q,"weight":%d,"host":"node-%02d","started":"2026-01-0%dT10:00:00Z"}}`,
			i%3, 10+i, zone, version, 100, i, 1+i%9)
		if i == 4 {
			value = fmt.Sprintf(`{"Addr":"10.0.1.14:50051","Metadata":{"zone":%q,"version":%q,"status":"draining","host":"node-04"}}`, zone, version)
		}
		s.put(fmt.Sprintf("shop/checkout/checkout-%c", 'a'+i), value, s.lease(300))
	}
	s.put("shop/checkout/checkout-x", `{"Addr":`)
	s.put("shop/checkout/checkout-y", `{"Addr":"169.254.1.1:50051","Metadata":{"weight":-3}}`)
	s.put("_grpc_config/shop/checkout", `{"loadBalancingConfig":[{"round_robin":{}}],"methodConfig":[{"name":[{}],"timeout":"2s"}]}`)
	for i, service := range []string{"billing/invoices", "billing/payments", "catalog/items", "catalog/search", "identity/sessions", "identity/users",
		"mail/outbound", "shop/basket", "shop/recommendations", "stock/reservations", "stock/warehouse"} {
		for n := range 2 + i*3%7 {
			status := ""
			if i == 3 && n == 1 {
				status = `,"status":"draining"`
			}
			s.put(fmt.Sprintf("%s/%s-%d", service, filepath.Base(service), n), fmt.Sprintf(`{"Addr":"10.1.%d.%d:50051","Metadata":{"zone":"eu-%d"%s}}`, i, n+1, 1+n%3, status))
		}
	}
	const service = "shop%2Fcheckout"
	return s, map[string]string{
		"services": "/", "service": "/service?name=" + service, "cluster": "/cluster", "history": "/history?name=" + service, "clients": "/clients",
		"drain": "/change?service=" + service + "&id=checkout-a&do=drain", "weight": "/change?service=" + service + "&id=checkout-a&do=weight",
		"config": "/config?service=" + service,
	}
}

// TestAccessible: axe-core finds no violation of WCAG A and AA on any page, in light and in dark, and no
// page is wider than a small phone.
func TestAccessible(t *testing.T) {
	t.Parallel()
	need(t, axe != "", "axe-core; to install it: npm ci --ignore-scripts --prefix internal/test/e2e/browser")
	s, pages := newShowcase(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a token for this test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := s.open(pages["service"])
	stale.row("checkout-a", "serving")
	login := openRefused(t, serve(t, s.etcd, "--console-token-file", token), "/")
	b := s.open("/")
	for name, path := range pages {
		b.visit(path)
		b.check(name)
	}
	login.check("login")
	s.etcd.Member(0).Stop()
	stale.shows("#banner .stale", "Out of date")
	stale.check("stale")
}

// check looks for what keeps people from using a page.
func (b *tab) check(name string) {
	b.t.Helper()
	eval[bool](b, axe+"; true")
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		problems := eval[[]string](b, `axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}).then(r =>
			r.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.html + ' ' + n.failureSummary)))`)
		for _, problem := range problems {
			b.t.Errorf("%s in %s: %s", name, scheme, problem)
		}
	}
	b.screen(360, 740)
	if width := eval[int](b, "document.documentElement.scrollWidth"); width > 360 {
		b.t.Errorf("%s is %d px wide on a screen of 360", name, width)
	}
	b.screen(1280, 900)
}

// TestKeyboard: without a mouse, the focus comes to each link, field, button and table in turn and is
// seen; an endpoint is found and drained.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	s, pages := newShowcase(t)
	b := s.open(pages["service"])
	b.row("checkout-a", "serving")
	want := eval[int](b, `document.querySelectorAll('a[href], button, input:not([type=hidden]), textarea, [tabindex="0"]').length`)
	seen := make(map[int]bool)
	for range want + 5 {
		b.press(kb.Tab)
		at := eval[int](b, `[...document.querySelectorAll('a[href], button, input:not([type=hidden]), textarea, [tabindex="0"]')].indexOf(document.activeElement)`)
		if at >= 0 && eval[string](b, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
			t.Errorf("the focus is not seen on %s", eval[string](b, "document.activeElement.outerHTML"))
		}
		seen[at] = true
	}
	delete(seen, -1)
	if len(seen) != want {
		t.Errorf("the focus comes to %d of %d elements", len(seen), want)
	}
	b.visit("/")
	b.tabTo("document.activeElement.id === 'prefix'")
	b.press("shop/ch")
	b.shows("#summary", "1 service that")
	b.tabTo("document.activeElement.innerText === 'shop/checkout'")
	b.press(kb.Enter)
	b.shows("h1", "shop/checkout")
	b.tabTo("document.activeElement.matches('a[href*=\"id=checkout-b\"][href*=\"do=drain\"]')")
	b.press(kb.Enter)
	b.shows("h1", "Drain checkout-b?")
	b.tabTo("document.activeElement.id === 'confirm'")
	b.press(kb.Enter)
	b.row("checkout-b", "draining")
}

// tabTo presses the tab key until an expression is true.
func (b *tab) tabTo(expression string) {
	b.t.Helper()
	for range 100 {
		b.press(kb.Tab)
		if eval[bool](b, expression) {
			return
		}
	}
	b.t.Fatalf("the focus never comes to where %s", expression)
}
