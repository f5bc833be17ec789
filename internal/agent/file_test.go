// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-grpc/rollcall"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`
interval: 2s
fall: 2
checks: [grpc]
services:
- service: shop/cart
  address: 10.0.0.7:50051
- service: shop/cart/
  id: blue
  address: 10.0.0.8:50051
  metadata: {weight: 10, zone: eu-1}
  ttl: 30s
  interval: 1m
  timeout: 500ms
  fall: 1
  rise: 5
  checks: [tcp, "http://:8080/healthz", "exec:test -e /run/ready"]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{SelfPreservation: true, Services: []Service{
		{"shop/cart", rollcall.Endpoint{ID: "10.0.0.7:50051", Addr: "10.0.0.7:50051"},
			Settings{[]string{"grpc"}, 10 * time.Second, 2 * time.Second, time.Second, 2, 2}},
		{"shop/cart", rollcall.Endpoint{ID: "blue", Addr: "10.0.0.8:50051", Metadata: json.RawMessage(`{"weight":10,"zone":"eu-1"}`)},
			Settings{[]string{"tcp", "http://:8080/healthz", "exec:test -e /run/ready"}, 30 * time.Second, time.Minute, 500 * time.Millisecond, 1, 5}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got, err := Parse([]byte("selfPreservation: false\nservices: []")); err != nil || got.SelfPreservation || len(got.Services) != 0 {
		t.Errorf("got %+v, %v, want no services and no self-preservation", got, err)
	}
}

// Each error names the entry and the field.
func TestParseRefuses(t *testing.T) {
	const good = "- {service: a, address: '10.0.0.1:80', checks: [tcp]}\n"
	for _, row := range []struct{ name, text, want string }{
		{"empty", "", `services: the list of endpoints is missing; [] for none`},
		{"not YAML", "services: [", `not YAML: line 1`},
		{"a list", "- a", `want fields with values, got array`},
		{"unknown at the top", "service: []", `unknown field "service"`},
		{"twice at the top", "services: []\nservices: []", `key "services" already set`},
		{"bad default", "ttl: soon\nservices: []", `ttl: "soon" is not a duration, such as 5s`},
		{"short default", "interval: 1ms\nservices:\n" + good, `interval: 1ms: must be at least 100ms`},
		{"name in capitals", "Services: []\nservices: []", `unknown field "Services"`},
		{"name in capitals in an entry", "services:\n- {service: b, ID: c, address: '10.0.0.1:80', checks: [tcp]}", `unknown field "ID"`},
		{"second document", "services: []\n---\nservices: []", `it has a second document after ---`},
		{"long ttl", "ttl: 25h\nservices: []", `ttl: 25h0m0s: must be from 1s to 24h0m0s`},
		{"number for a duration", "interval: 5\nservices: []", `interval: want string, got number`},
		{"unknown in an entry", "services:\n" + good + "- {service: b, adress: 'x'}", `services[1] (b): unknown field "adress"`},
		{"no service", "services:\n- {address: '10.0.0.1:80', checks: [tcp]}", `services[0]: service: `},
		{"no address", "services:\n- {service: b, checks: [tcp]}", `services[0] (b): address: it is missing`},
		{"bad address", "services:\n- {service: b, address: '10.0.0.1', checks: [tcp]}", `services[0] (b 10.0.0.1): address: `},
		{"no checks", "services:\n- {service: b, address: '10.0.0.1:80'}", `services[0] (b 10.0.0.1:80): checks: there are none; tcp is the least`},
		{"bad check", "services:\n- {service: b, address: '10.0.0.1:80', checks: [udp]}", `services[0] (b 10.0.0.1:80): checks: check "udp": unknown kind`},
		{"short ttl", "services:\n- {service: b, id: c, address: '10.0.0.1:80', checks: [tcp], ttl: 100ms}", `services[0] (b c): ttl: 100ms: must be from 1s to 24h0m0s`},
		{"no fall", "services:\n- {service: b, address: '10.0.0.1:80', checks: [tcp], fall: 0}", `services[0] (b 10.0.0.1:80): fall: 0: must be at least 1`},
		{"metadata is a list", "services:\n- {service: b, address: '10.0.0.1:80', checks: [tcp], metadata: [1]}", `metadata: [1]: it must be an object`},
		{"key twice", "services:\n" + good + "- {service: a, id: '10.0.0.1:80', address: '10.0.0.2:80', checks: [tcp]}", `services[1] (a 10.0.0.1:80): id: services[0] has the key "a/10.0.0.1:80" already`},
	} {
		t.Run(row.name, func(t *testing.T) {
			if c, err := Parse([]byte(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %+v, %v, want %s", c, err, row.want)
			}
		})
	}
	// All that is wrong is told at once.
	_, err := Parse([]byte("services:\n- {service: a, address: x, checks: [udp]}\n- {service: b}"))
	if got := strings.Count(err.Error(), "\n"); got != 2 {
		t.Errorf("got %v, want three errors", err)
	}
}

func TestServiceEqual(t *testing.T) {
	const text = "services: [{service: a, address: '10.0.0.1:80', checks: [tcp], metadata: {a: 1, b: 2}}]"
	parse := func(text string) *Service {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return &c.Services[0]
	}
	if a, b := parse(text), parse(strings.Replace(text, "a: 1, b: 2", "b: 2, a: 1", 1)); !a.equal(b) {
		t.Errorf("%+v and %+v differ", a, b)
	}
	for _, change := range [][2]string{{"a: 1", "a: 2"}, {"tcp", "grpc"}, {"checks", "fall: 4, checks"}, {"0.1", "0.2"}} {
		if a, b := parse(text), parse(strings.Replace(text, change[0], change[1], 1)); a.equal(b) {
			t.Errorf("%+v and %+v do not differ", a, b)
		}
	}
}
