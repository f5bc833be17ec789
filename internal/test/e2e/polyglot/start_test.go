// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

// TestStart: what clients find that are started with targets and services of all kinds.
func TestStart(t *testing.T) {
	f := newFixture(t)
	a, b := start(t, ""), start(t, "")
	// Of all endpoints only the first is called, of those of eu-2 the second, since no other is left.
	f.put("one/a", a.addr, `{"zone":"eu-1"}`)
	f.put("one/b", b.addr, `{"zone":"eu-2","status":"draining"}`)
	_, port, _ := net.SplitHostPort(b.addr)
	f.put("hosts/a", a.addr, "null")
	f.put("hosts/b", "known.test:"+port, "null")
	f.put("hosts/c", "unknown.test:80", "null")
	f.put("gone/c", "unknown.test:80", "null")
	f.put("configured/a", a.addr, "null")
	f.put("configured/b", b.addr, "null")
	lab.PutValue(t, f.client, rollcall.ConfigPrefix+"configured", `{
		"loadBalancingConfig": [{"rollcall_weighted":{}}, {"least_request_experimental":{"choiceCount":2}}, {"round_robin":{}}],
		"methodConfig": [{"name":[{"service":"greeter.Greeter","method":"Greet"}], "timeout":"3s",
			"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}`)

	f.refused("a service that etcd does not have", "xds:///unknown")
	f.refused("a service all of whose endpoints are left out", "xds:///gone")
	f.refused("a service that the client may not have", "xds:///forbidden")
	for _, test := range []struct {
		row, target string
		servers     []*backend
	}{
		{"a host name that cannot be resolved beside good endpoints, one of them a host name", "xds:///hosts", []*backend{a, b}},
		{"a service config with `rollcall_weighted`, `least_request_experimental`, a time-out and retries", "xds:///configured", []*backend{a, b}},
		{"`xds:///one;zone=eu-2`", "xds:///one;zone=eu-2", []*backend{b}},
		{"`xds://etcd/one`", "xds://etcd/one", []*backend{a}},
		{"`xds://etcd/one;zone=eu-2`", "xds://etcd/one;zone=eu-2", []*backend{b}},
	} {
		f.served(test.row, test.target, test.servers)
	}
	// Which other forms of a selector reach the server is for each gRPC to decide.
	for _, target := range []string{"xds:///one?zone=eu-2", "xds:///one%3Fzone=eu-2"} {
		began := time.Now()
		fl := f.fleet(target, "", "--count", "1")
		fl.see(t, "", began, first(began, func(call) bool { return true }))
		for _, c := range fl {
			cell := "no"
			if c.since(began)[0].server == b.addr {
				cell = "yes"
			}
			measured.set("`"+target+"`", c.name, cell)
			c.stop() // Node's does not end after an error of this kind
		}
		t.Log(measured.row("`" + target + "`"))
	}
}

// served starts clients that are to call some servers, and no others.
func (f *fixture) served(row, target string, servers []*backend) {
	f.t.Helper()
	began := time.Now()
	fl := f.fleet(target, "", "--count", "0", "--interval", "0.01")
	for _, s := range servers {
		fl.see(f.t, "", began, answers(began, s.addr))
	}
	time.Sleep(200 * time.Millisecond)
	fl.stop()
	fl.noFailure(f.t, row, began)
	for _, c := range fl {
		measured.set(row, c.name, "yes")
		for _, call := range c.since(began) {
			if call.server != "" && !slices.ContainsFunc(servers, func(b *backend) bool { return b.addr == call.server }) {
				f.t.Errorf("%s: %s calls %s", row, c.name, call.server)
				break
			}
		}
	}
	f.t.Log(measured.row(row))
}

// TestWeights: of 10,000 calls each server gets the share that its weight asks for, to 2 points.
func TestWeights(t *testing.T) {
	f := newFixture(t)
	light, heavy := start(t, ""), start(t, "")
	f.put("weights/light", light.addr, `{"weight":1}`)
	f.put("weights/heavy", heavy.addr, `{"weight":9}`)
	const row, calls = "weights 1:9, the share of the first in 10,000 calls", 10_000
	began := time.Now()
	fl := f.fleet("xds:///weights", "", "--count", "0", "--interval", "0")
	sample := func(c *client) []call { // begins when both are connected
		all := c.since(began)
		l := slices.IndexFunc(all, func(c call) bool { return c.server == light.addr })
		h := slices.IndexFunc(all, func(c call) bool { return c.server == heavy.addr })
		if from := max(l, h); min(l, h) >= 0 && len(all) >= from+calls {
			return all[from : from+calls]
		}
		return nil
	}
	fl.see(t, "", began, func(c *client) (time.Time, bool) {
		enough := sample(c) != nil
		if enough {
			c.stop() // and leave the machine to the others
		}
		return began, enough
	})
	fl.noFailure(t, row, began)
	for _, c := range fl {
		n := 0
		for _, call := range sample(c) {
			if call.server == light.addr {
				n++
			}
		}
		share := 100 * float64(n) / calls
		if measured.set(row, c.name, fmt.Sprintf("%.1f %%", share)); share < 8 || share > 12 {
			t.Errorf("%s: %s answers %.1f %% of the calls, want 10", c.name, light.addr, share)
		}
	}
	t.Log(measured.row(row))
}

// TestSubsets: of a service of 3,000 endpoints each client gets as many as it may have, not the
// same as others.
func TestSubsets(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, port, _ := net.SplitHostPort(start(t, "0.0.0.0:0").addr)
	var puts []clientv3.Op
	for i := range 3000 {
		addr := fmt.Sprintf("127.1.%d.%d:%s", i/250, i%250+1, port)
		puts = append(puts, clientv3.OpPut("many/"+addr, fmt.Sprintf(`{"Addr":%q}`, addr)))
	}
	for some := range slices.Chunk(puts, 100) {
		if _, err := f.client.Txn(lab.Context(t)).Then(some...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	fl := f.fleet("xds:///many", "", "--count", "0", "--interval", "0.001")
	fl.see(t, fmt.Sprintf("3,000 endpoints, a client may have %d: the first call until all of them are called", subset), began, func(c *client) (time.Time, bool) {
		calls := c.since(began)
		found := make(map[string]bool)
		for _, call := range calls {
			if call.server != "" {
				found[call.server] = true
			}
			if len(found) == subset {
				return began.Add(call.ended.Sub(calls[0].ended)), true
			}
		}
		return time.Time{}, false
	})
	time.Sleep(500 * time.Millisecond)
	fl.stop()
	fl.noFailure(t, "subsets", began)
	union := make(map[string]bool)
	for _, c := range fl {
		found := make(map[string]int)
		for _, call := range c.all(t) {
			if call.server != "" {
				found[call.server]++
				union[call.server] = true
			}
		}
		if len(found) != subset {
			t.Errorf("%s calls %d servers, want %d: %v", c.name, len(found), subset, found)
		}
	}
	if len(fl) > 1 && len(union) < subset*3/2 {
		t.Errorf("all clients together call %d servers: they have the same subset", len(union))
	}
}
