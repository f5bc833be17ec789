// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// putAll writes keys and values.
func putAll(t *testing.T, endpoint string, kvs map[string]string) {
	t.Helper()
	client, err := rollcall.NewClient(rollcall.ClientConfig(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var puts []clientv3.Op
	for key, value := range kvs {
		puts = append(puts, clientv3.OpPut(key, value))
	}
	if _, err := client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
		t.Fatal(err)
	}
}

// targetsAt returns the targets at a query, one a line with its labels, without what all names begin with.
func targetsAt(t *testing.T, admin, query string) string {
	t.Helper()
	code, body := get(t, admin, "/prometheus/sd"+query)
	var groups []targetGroup
	if err := json.Unmarshal([]byte(body), &groups); err != nil || code != http.StatusOK || groups == nil {
		t.Fatalf("%s: %d %q, %v", query, code, body, err)
	}
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintln(&b, g.Targets, strings.ReplaceAll(fmt.Sprint(g.Labels), metaLabel, ""))
	}
	return b.String()
}

// TestDiscoveryTargets: a service, a prefix and everything, with labels from metadata, however hostile.
func TestDiscoveryTargets(t *testing.T) {
	endpoint := freshEtcd(t).Endpoint()
	putAll(t, endpoint, map[string]string{
		"shop/cart/a": `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"weight":3,"region":"eu","zone":"eu-1","subzone":"r1","version":"v2","host":"h1","metrics_port":9100,"team-name":"x","canary":true,"n":1.5e3,"tags":["a"],"o":{},"nil":null}}`,
		"shop/cart/b": `{"Op":0,"Addr":"[::1]:80","Metadata":{"status":"draining","zone":"eu-2","metrics_port":"no","weight":"heavy"}}`,
		"shop/cart/c": `{"Op":0,"Addr":"10.0.0.3:80"}`,
		"shop/cart/d": `not an endpoint`,
		"shop/cart/e": `{"Op":0,"Addr":"unix:/run/x"}`,
		"shop/pay/f":  `{"Op":0,"Addr":"10.0.0.6:80","Metadata":{"é":"1","a-b":"dash","a_b":"line","a.b":"dot","\n":"<script>\u0000"}}`,
		"shopping/g":  `{"Op":0,"Addr":"10.0.0.7:80","Metadata":"text"}`,
		"other":       `{"Op":0,"Addr":"10.0.0.8:80"}`,

		"_grpc_config/shop/pay": `{}`,
	})
	s := beginServe(t, endpoint)
	const (
		a = "map[host:h1 id:a metadata_canary:true metadata_metrics_port:9100 metadata_n:1.5e3 metadata_team_name:x region:eu service:shop/cart status:serving subzone:r1 version:v2 weight:3 zone:eu-1]\n"
		b = "map[id:b metadata_metrics_port:no service:shop/cart status:draining weight:1 zone:eu-2]\n"
		c = "map[id:c service:shop/cart status:serving weight:1]\n"
		f = "map[id:f metadata__:1 metadata_a_b:line service:shop/pay status:serving weight:1]\n"
		g = "[10.0.0.7:80] map[id:g service:shopping status:serving weight:1]\n"
	)
	cart := "[10.0.0.1:9100] " + a + "[[::1]:80] " + b + "[10.0.0.3:80] " + c
	pay := "[10.0.0.6:80] " + strings.Replace(f, "metadata__:1", "metadata__:<script>\x00", 1)
	for _, row := range []struct{ query, want string }{
		{"", cart + pay + g},
		{"?service=shop/cart", cart},
		{"?service=shop/cart/", cart},
		{"?prefix=shop/", cart + pay},
		{"?prefix=shop", cart + pay + g},
		{"?service=shop", strings.NewReplacer("id:", "id:cart/", "shop/cart", "shop").Replace(cart) + strings.NewReplacer("id:", "id:pay/", "shop/pay", "shop").Replace(pay)},
		{"?service=none", ""},
		{"?service=shop/cart&zone=eu-1&zone=eu-3", "[10.0.0.1:9100] " + a},
		{"?prefix=shop/&status=draining", "[[::1]:80] " + b},
		{"?service=shop/cart&port=7070", "[10.0.0.1:7070] " + a + "[[::1]:7070] " + b + "[10.0.0.3:7070] " + c},
	} {
		if diff := cmp.Diff(row.want, targetsAt(t, s.admin, row.query)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.query, diff)
		}
	}
}

// TestDiscoveryMistakes: a request that is wrong is told what is wrong with it.
func TestDiscoveryMistakes(t *testing.T) {
	s := beginServe(t, sharedEtcd(t))
	for query, want := range map[string]string{
		"?service=":                "it names no service",
		"?service=a&prefix=b":      "service and prefix exclude each other",
		"?service=a&service=b":     "service is given 2 times",
		"?service=a&port=0":        `port "0": want a number from 1 to 65535`,
		"?service=a&port=http":     `port "http"`,
		"?service=a&port=":         `port ""`,
		"?service=a&colour=red":    `unknown field "colour"; want weight, region, zone, subzone, version, status or host; besides service, prefix and port`,
		"?service=a&weight=heavy":  `weight is "heavy"`,
		"?service=%zz":             `write for example ?service=my-service&port=9090`,
		"?service=a;b=c":           `query "service=a;b=c"`,
		"?service=a&zo%0Ane=%1b[m": `unknown field "zo\nne"`,
	} {
		if code, body := get(t, s.admin, "/prometheus/sd"+query); code != http.StatusBadRequest || !strings.Contains(body, want) || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: %d %q, want 400 with %q", query, code, body, want)
		}
	}
}

// TestDiscoveryFollows: requests share one watch, which stays; changes arrive, and while etcd is
// away the last targets stay. Before anything is known the answer is 503.
func TestDiscoveryFollows(t *testing.T) {
	etcd := freshEtcd(t)
	endpoint := etcd.Endpoint()
	putAll(t, endpoint, map[string]string{"svc/a": `{"Op":0,"Addr":"10.0.0.1:80"}`})
	s := beginServe(t, endpoint, "--metrics-services", "0")
	if got := targetsAt(t, s.admin, "?service=svc"); strings.Count(got, "\n") != 1 {
		t.Fatalf("targets %q", got)
	}
	before := listsOf(t, s)
	putAll(t, endpoint, map[string]string{"svc/b": `{"Op":0,"Addr":"10.0.0.2:80"}`})
	eventually(t, "the change arrives", func() bool { return strings.Count(targetsAt(t, s.admin, "?service=svc"), "\n") == 2 })
	if now := listsOf(t, s); now != before || before == "" {
		t.Errorf("%q after further requests, %q before", now, before)
	}

	etag := func(known string) (code int, tag string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.admin+"/prometheus/sd?service=svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", known)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("ETag")
	}
	code, tag := etag("")
	if again, _ := etag(tag); code != http.StatusOK || tag == "" || again != http.StatusNotModified {
		t.Errorf("%d with ETag %s, then %d", code, tag, again)
	}

	if err := etcd.Close(); err != nil {
		t.Fatal(err)
	}
	if got := targetsAt(t, s.admin, "?service=svc"); strings.Count(got, "\n") != 2 {
		t.Errorf("targets %q while etcd is away", got)
	}
	if code, body := get(t, beginServe(t, endpoint).admin, "/prometheus/sd?service=svc"); code != http.StatusServiceUnavailable || !strings.Contains(body, "nothing is known yet: ") {
		t.Errorf("%d %q", code, body)
	}
}

// TestDiscoveryIsBounded: where everything may be read it is followed once, whatever is asked for; else
// no more than some prefixes are, and further ones are refused.
func TestDiscoveryIsBounded(t *testing.T) {
	etcd := freshEtcd(t)
	endpoint := etcd.Endpoint()
	putAll(t, endpoint, map[string]string{"open/a": `{"Op":0,"Addr":"10.0.0.1:80"}`})
	s := beginServe(t, endpoint)
	targetsAt(t, s.admin, "")
	before := listsOf(t, s)
	for i := range maxDiscoveries + 10 {
		targetsAt(t, s.admin, fmt.Sprintf("?prefix=open/%d", i))
	}
	if now := listsOf(t, s); now != before || before == "" {
		t.Errorf("%q after requests for many prefixes, %q before", now, before)
	}

	client := etcdClient(t, endpoint)
	for _, err := range []error{
		second(client.RoleAdd(t.Context(), "root")),
		second(client.UserAdd(t.Context(), "root", "secret")),
		second(client.UserGrantRole(t.Context(), "root", "root")),
		second(client.RoleAdd(t.Context(), "reader")),
		second(client.RoleGrantPermission(t.Context(), "reader", "open/", "open0", clientv3.PermissionType(clientv3.PermRead))),
		second(client.UserAdd(t.Context(), "bob", "builder")),
		second(client.UserGrantRole(t.Context(), "bob", "reader")),
		second(client.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = beginServe(t, endpoint, "--user", "bob:builder")
	if got := targetsAt(t, s.admin, "?service=open"); strings.Count(got, "\n") != 1 {
		t.Errorf("targets %q", got)
	}
	refused := 0
	for i := range maxDiscoveries {
		code, body := get(t, s.admin, fmt.Sprintf("/prometheus/sd?prefix=open/%d", i))
		if code == http.StatusServiceUnavailable && strings.Contains(body, "the most that are: ask for fewer") {
			refused++
		} else if code != http.StatusOK {
			t.Errorf("prefix %d: %d %q", i, code, body)
		}
	}
	if refused != 2 { // all keys and the service are followed as well
		t.Errorf("%d prefixes were refused, want 2", refused)
	}
	if code, body := get(t, s.admin, "/prometheus/sd"); code != http.StatusServiceUnavailable || !strings.Contains(body, "permission denied") {
		t.Errorf("all keys: %d %q", code, body)
	}
	if err := etcd.Close(); err != nil {
		t.Fatal(err)
	}
	if got := targetsAt(t, s.admin, "?service=open"); strings.Count(got, "\n") != 1 {
		t.Errorf("targets %q while etcd is away", got)
	}
}

func second[T any](_ T, err error) error { return err }

// listsOf returns how often etcd was asked for keys. Once it is ready, what is followed in any case
// has been.
func listsOf(t *testing.T, s *served) string {
	t.Helper()
	eventually(t, "it is ready", func() bool { code, _ := get(t, s.admin, "/readyz"); return code == http.StatusOK })
	_, body := get(t, s.admin, "/metrics")
	return metricLine(body, `rollcall_etcd_calls_total{code="OK",method="etcdserverpb.KV/Range"}`)
}

// metricLine returns the line of a series.
func metricLine(page, name string) string {
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, name+" ") {
			return line
		}
	}
	return ""
}
