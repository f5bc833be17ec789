// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func (b *bench) value(key string) string {
	b.Helper()
	resp, err := b.client.Get(b.Context(), key)
	if err != nil {
		b.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

// A form shows what a change would do to the calls, by the weights that the service's policy reads.
func TestPreviewOfChange(t *testing.T) {
	b := newBench(t, Options{Writes: true})
	b.put("shop/a", `{"Addr":"10.0.0.1:1","Metadata":{"weight":12}}`)
	b.put("shop/b", `{"Addr":"10.0.0.2:1","Metadata":{"weight":36}}`)
	b.put("shop/c", `{"Addr":"10.0.0.3:1","Metadata":{"weight":48,"status":"draining"}}`)
	for _, row := range []struct {
		policy, change string
		want           []string
	}{
		{"", "id=a&do=drain", []string{"25.0 % of the calls would move, where the balancing policy follows weights.", `<td class="n">75.0 %</td><td class="n">100.0 %</td>`}},
		{"round_robin", "id=a&do=drain", []string{"50.0 % of the calls would move.", `<td class="n">50.0 %</td><td class="n">100.0 %</td>`}},
		{"rollcall_weighted", "id=a&do=weight&weight=4", []string{"15.0 % of the calls would move.", "12 &rarr; 4"}},
		{"rollcall_weighted", "id=c&do=undrain", []string{"50.0 % of the calls would move.", `<td class="n">0.0 %</td><td class="n">50.0 %</td>`}},
	} {
		if row.policy != "" {
			b.put("_grpc_config/shop", `{"loadBalancingConfig":[{"`+row.policy+`":{}}]}`)
		}
		wantIn(t, b.get("/change?service=shop&"+row.change).body, row.want...)
	}
	const page = "/change?service=shop&id=a&do=weight&weight=12" // as a service's page links to it
	if body := b.get(page).body; strings.Contains(body, "would move") {
		t.Error("a weight that it has is previewed")
	}
	before := b.value("shop/a")
	wantIn(t, b.submit(page, page, url.Values{"weight": {"4"}, "preview": {"yes"}}).body, "would move", "12 &rarr; 4", `value="4"`)
	if got := b.value("shop/a"); got != before {
		t.Errorf("the preview wrote %s", got)
	}
}

// TestChanges: what a form asks about is done once it is confirmed, and logged.
func TestChanges(t *testing.T) {
	b := newBench(t, Options{Writes: true, CheckConfig: func(config string) error {
		if config == `{"bad":1}` {
			return errors.New("gRPC does not like it")
		}
		return nil
	}})
	b.put("shop/a", `{"Addr":"10.0.0.1:1","Metadata":{"zone":"eu-1"},"Other":1}`)
	wantIn(t, b.get("/service?name=shop").body, "do=drain", "do=weight", "/config?service=shop")
	for _, step := range []struct{ action, form, want string }{
		{"do=drain", "", `{"Addr":"10.0.0.1:1","Metadata":{"status":"draining","zone":"eu-1"},"Op":0,"Other":1}`},
		{"do=undrain", "", `{"Addr":"10.0.0.1:1","Metadata":{"zone":"eu-1"},"Op":0,"Other":1}`},
		{"do=weight", "12", `{"Addr":"10.0.0.1:1","Metadata":{"weight":12,"zone":"eu-1"},"Op":0,"Other":1}`},
	} {
		path := "/change?service=shop&id=a&" + step.action
		before := b.value("shop/a")
		wantIn(t, b.get(path).body, `method="post"`)
		if got := b.value("shop/a"); got != before {
			t.Errorf("GET %s has written %s", path, got)
		}
		fields := url.Values{"weight": {step.form}}
		if step.action == "do=drain" { // of the only endpoint
			a := b.submit(path, path, fields)
			wantIn(t, a.body, "no other endpoint", "Drain it nevertheless")
			if got := b.value("shop/a"); a.status != http.StatusConflict || got != before {
				t.Errorf("%s: %d, wrote %s", path, a.status, got)
			}
			fields.Set("last", "yes")
		}
		if a := b.submit(path, path, fields); a.status != http.StatusSeeOther || a.header.Get("Location") != "/service?name=shop" {
			t.Errorf("%s: %d to %q: %s", step.action, a.status, a.header.Get("Location"), a.body)
		}
		if got := b.value("shop/a"); got != step.want {
			t.Errorf("%s wrote %s, want %s", step.action, got, step.want)
		}
	}
	b.put("shop/b", `{"Addr":"10.0.0.2:1","Metadata":{"weight":36}}`)
	wantIn(t, b.get("/change?service=shop&id=a&do=drain").body, "25.0 % of the calls would move, where the balancing policy follows weights", `<td class="n">75.0 %</td><td class="n">100.0 %</td>`)
	for _, bad := range []struct {
		path, weight, want string
		status             int
	}{
		{"/change?service=shop&id=a&do=weight", "0", "want a whole number", 400},
		{"/change?service=shop&id=none&do=drain", "", "has neither an id nor an address", 404},
		{"/change?service=shop&id=a&do=delete", "", "want drain, undrain or weight", 400},
		{"/change?service=shop&do=drain", "", "the id of the endpoint is missing", 400},
		{"/change?service=_grpc_config&id=a&do=drain", "", "service configs", 400},
	} {
		a := b.submit("/change?service=shop&id=a&do=drain", bad.path, url.Values{"weight": {bad.weight}})
		if a.status != bad.status {
			t.Errorf("%s: %d, want %d", bad.path, a.status, bad.status)
		}
		wantIn(t, a.body, bad.want)
	}

	const path = "/config?service=shop"
	write := func(fields url.Values) answer { return b.submit(path, path, fields) }
	if a := write(url.Values{"config": {`{}`}, "modified": {"0"}}); a.status != http.StatusBadRequest {
		t.Errorf("without being sure: %d", a.status)
	}
	if a := write(url.Values{"config": {`{"bad":1}`}, "modified": {"0"}, "sure": {"yes"}}); a.status == http.StatusSeeOther {
		t.Error("what gRPC does not accept is written")
	} else {
		wantIn(t, a.body, "gRPC does not like it")
	}
	if a := write(url.Values{"config": {`{"a":1}`}, "modified": {"0"}, "sure": {"yes"}}); a.status != http.StatusSeeOther || b.value("_grpc_config/shop") != `{"a":1}` {
		t.Errorf("written with %d: %q", a.status, b.value("_grpc_config/shop"))
	}
	if a := write(url.Values{"config": {`{"a":2}`}, "modified": {"0"}, "sure": {"yes"}}); a.status != http.StatusConflict || b.value("_grpc_config/shop") != `{"a":1}` {
		t.Errorf("an outdated form: %d: %q", a.status, b.value("_grpc_config/shop"))
	}
	resp, err := b.client.Get(t.Context(), "_grpc_config/shop")
	if err != nil {
		t.Fatal(err)
	}
	modified := url.Values{"do": {"delete"}, "modified": {strconv.FormatInt(resp.Kvs[0].ModRevision, 10)}, "sure": {"yes"}}
	if a := write(modified); a.status != http.StatusSeeOther || b.value("_grpc_config/shop") != "" {
		t.Errorf("deleted with %d: %q", a.status, b.value("_grpc_config/shop"))
	}
	wantIn(t, b.log.String(), "changed by the console", `who="somebody at this host"`, "change=weight", "value=12", `change="set service config"`, "a change by the console was not made")
}

// TestWritesAreProtected: what is not the visitor's own form writes nothing.
func TestWritesAreProtected(t *testing.T) {
	const path = "/change?service=shop&id=a&do=drain"
	const before = `{"Addr":"10.0.0.1:1"}`
	b := newBench(t, Options{Writes: true})
	b.put("shop/a", before)
	csrf := csrfField.FindStringSubmatch(b.get(path).body)[1]
	for name, change := range map[string]func(r *http.Request){
		"without a token":       func(r *http.Request) { *r = *b.request(http.MethodPost, path, nil) },
		"with another's token":  func(r *http.Request) { *r = *b.request(http.MethodPost, path, url.Values{"csrf": {csrf[1:] + "x"}}) },
		"from another origin":   func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"as another site":       func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"with another's cookie": func(r *http.Request) { b.browser = b.newBrowser() },
		"by GET":                func(r *http.Request) { *r = *b.request(http.MethodGet, path+"&csrf="+url.QueryEscape(csrf), nil) },
	} {
		r := b.request(http.MethodPost, path, url.Values{"csrf": {csrf}})
		browser := b.browser
		change(r)
		a := b.do(r)
		b.browser = browser
		if a.status != http.StatusForbidden && name != "by GET" {
			t.Errorf("%s: %d", name, a.status)
		}
		if got := b.value("shop/a"); got != before {
			t.Fatalf("%s: %s is written", name, got)
		}
	}
	if a := b.do(b.request(http.MethodPost, path, url.Values{"csrf": {csrf}, "last": {"yes"}})); a.status != http.StatusSeeOther {
		t.Errorf("the form itself: %d %s", a.status, a.body)
	}
}

// TestReadOnly is the default.
func TestReadOnly(t *testing.T) {
	b := newBench(t, Options{})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	for _, path := range []string{"/change?service=shop&id=a&do=drain", "/config?service=shop"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if a := b.do(b.request(method, path, nil)); a.status != http.StatusForbidden {
				t.Errorf("%s %s: %d", method, path, a.status)
			}
		}
	}
	wantNotIn(t, b.get("/service?name=shop").body, "do=drain", "/config?")
}
