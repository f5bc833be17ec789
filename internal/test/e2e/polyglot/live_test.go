// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"strings"
	"testing"
	"time"
)

// TestLive: what happens to endpoints, replicas and etcd reaches all clients while they call, and
// no call fails that need not.
func TestLive(t *testing.T) {
	f := newFixture(t)
	a, b, c := start(t, ""), start(t, ""), start(t, "")
	f.put("live/a", a.addr, "null")
	f.put("live/b", b.addr, "null")
	began := time.Now()
	fl := f.fleet("xds:///live", "", "--count", "0", "--interval", "0.005")
	fl.see(t, "a client starts: its first call", began, func(c *client) (time.Time, bool) {
		if calls := c.since(began); len(calls) > 0 {
			return began.Add(calls[0].took), true
		}
		return time.Time{}, false
	})
	fl.see(t, "", began, answers(began, a.addr))
	fl.see(t, "", began, answers(began, b.addr))

	quiet := time.Now() // no call fails from here on
	since := f.put("live/c", c.addr, "null")
	fl.see(t, "an endpoint is added: the first call", since, answers(since, c.addr))
	since = f.remove("live/c")
	fl.see(t, "an endpoint is removed: the last call", since, leaves(since, c.addr))
	since = f.put("live/b", b.addr, `{"status":"draining"}`)
	fl.see(t, "an endpoint drains: the last call", since, leaves(since, b.addr))
	b.stop()
	f.remove("live/b")
	time.Sleep(200 * time.Millisecond)
	fl.noFailure(t, "added, removed, drained", quiet)

	since = f.remove("live/a")
	fl.see(t, "the last endpoint is removed: the first error", since, fails(since))
	since = f.put("live/a", a.addr, "null")
	fl.see(t, "an endpoint is there again: the first call", since, answers(since, a.addr))

	quiet = time.Now()
	f.replicas[0].kill()
	since = f.put("live/c", c.addr, "null")
	fl.see(t, "one of two replicas is killed, an endpoint added: the first call", since, answers(since, c.addr))
	f.replicas[0] = f.replica()
	f.replicas[1].kill()
	since = f.remove("live/c")
	fl.see(t, "it is started again, the other killed, an endpoint removed: the last call", since, leaves(since, c.addr))
	f.outage(fl)
	fl.noFailure(t, "replicas and etcd restarted", quiet)
}

// outage stops etcd, starts clients, and starts etcd again.
func (f *fixture) outage(fl fleet) {
	t := f.t
	f.etcd.Member(0).Stop()
	for _, c := range f.fleet("xds:///live", "", "--count", "1") {
		calls := c.all(t)
		if len(calls) != 1 || calls[0].server == "" {
			t.Errorf("etcd is down: %s: %+v, want an answer", c.name, calls)
			continue
		}
		measured.set("etcd is down, a client starts, its service is known: the first call", c.name, duration(calls[0].took))
	}
	f.refused("etcd is down, a client starts, its service was never seen", "xds:///never-seen-by-LANGUAGE")
	f.etcd.Member(0).Start()
	f.etcd.WaitReady()
	d := start(t, "")
	since := f.put("live/d", d.addr, "null")
	fl.see(t, "etcd is back, an endpoint added: the first call", since, answers(since, d.addr))
}

// refused starts clients whose call fails, and notes after how long and how.
func (f *fixture) refused(row, target string) {
	f.t.Helper()
	for _, c := range f.fleet(target, "", "--count", "1") {
		calls := c.all(f.t)
		if len(calls) != 1 || calls[0].failure == "" || calls[0].took > 4*time.Second || strings.Contains(strings.ToLower(calls[0].failure), "deadline") {
			f.t.Errorf("%s: %s: %+v, want an error at once", row, c.name, calls)
			continue
		}
		measured.set(row+": the error", c.name, duration(calls[0].took))
		measured.text(row, c.name, calls[0].failure)
	}
	f.t.Log(measured.row(row + ": the error"))
	f.t.Log(measured.row(row))
}

// TestZones: clients call their own zone while it has servers.
func TestZones(t *testing.T) {
	f := newFixture(t)
	near, far := start(t, ""), start(t, "")
	f.put("zones/near", near.addr, `{"zone":"eu-1"}`)
	f.put("zones/far", far.addr, `{"zone":"eu-2"}`)
	began := time.Now()
	fl := f.fleet("xds:///zones", "eu-1", "--count", "0", "--interval", "0.005")
	fl.see(t, "", began, answers(began, near.addr))
	since := time.Now()
	fl.see(t, "", since, leaves(since, far.addr))
	fl.noFailure(t, "in a zone", began)

	since = f.remove("zones/near")
	fl.see(t, "the zone's endpoint is removed: the first call of the next zone", since, answers(since, far.addr))
	since = f.put("zones/near", near.addr, `{"zone":"eu-1"}`)
	fl.see(t, "it is there again: the last call of the next zone", since, leaves(since, far.addr))
	fl.noFailure(t, "an endpoint of a zone came and went", began)

	since = time.Now()
	near.stop()
	fl.see(t, "the zone's server dies: the first call of the next zone", since, answers(since, far.addr))
	since = time.Now()
	near = start(t, near.addr)
	fl.see(t, "it is started again: the first call of it", since, answers(since, near.addr))
	since = time.Now()
	fl.see(t, "", since, leaves(since, far.addr))
}
