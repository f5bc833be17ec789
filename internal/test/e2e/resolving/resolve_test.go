// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

func TestG1EtcdAwayAtBuild(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		spoil func(*etcdtest.Link)
		cause string
	}{
		{"down", (*etcdtest.Link).Cut, "connection refused"},
		{"black hole", (*etcdtest.Link).Freeze, "no answer from etcd"},
		{"mute", nil, "no answer from etcd"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
				e.Serve("one")
				link := etcdtest.NewLink(e.T, e.Reach[0])
				addr := link.Addr()
				if row.spoil != nil {
					row.spoil(link)
				} else {
					addr = lab.Mute(e.T)
				}
				conn := awayAtBuild(e, e.ClientWith(lab.At(addr)), row.cause, addr)
				if row.spoil != nil {
					link.Mend()
					mended := time.Now()
					e.Reaches(conn, "one")
					e.Within("calls succeed after mending", mended, 5*time.Second)
				}
				began := time.Now()
				conn.Close()
				e.Within("Close of the healed", began, 100*time.Millisecond)
			})
		})
	}
}

// awayAtBuild returns a channel whose calls fail as they must while etcd is away.
func awayAtBuild(e *lab.Env, client *clientv3.Client, cause, addr string) *grpc.ClientConn {
	b := e.BuilderOf(client)
	began := time.Now()
	e.ResolveBy(b, e.Target)
	e.Within("Build", began, 10*time.Millisecond)

	began = time.Now()
	conn := e.DialBy(b, "etcd:///"+e.Target)
	conn.Connect()
	_, err := e.Call(conn)
	e.Within("a call fails", began, 1200*time.Millisecond) // gRPC's own part included
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), cause) || !strings.Contains(err.Error(), addr) {
		e.Failf("got %v, want UNAVAILABLE with %q and %s", err, cause, addr)
	}

	// A deadline, perhaps before anything is known: this Directory has asked nobody yet.
	first := e.DialBy(e.BuilderOf(e.ClientWith(lab.At(addr))), "etcd:///"+e.Target)
	ctx, cancel := context.WithTimeout(e.Ctx, 50*time.Millisecond)
	defer cancel()
	_, err = lab.CallNamed(ctx, first)
	if known := status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), cause); !known && status.Code(err) != codes.DeadlineExceeded {
		e.Failf("got %v, want DEADLINE_EXCEEDED, or UNAVAILABLE with %q", err, cause)
	}
	began = time.Now()
	first.Close()
	e.Within("Close while etcd is away", began, 100*time.Millisecond)
	return conn
}

func TestG2NoPermissionAtBuild(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{Flags: []string{"--bcrypt-cost=4"}}, func(e *lab.Env) {
		e.Serve("one")
		auth := e.Etcd.EnableAuth(e.T)
		auth.AddUser("reader", "r")
		conn := e.DialBy(e.BuilderOf(e.ClientWith(auth.As("reader"))), "etcd:///"+e.Target)
		_, err := e.Call(conn)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "permission denied") {
			e.Failf("got %v, want UNAVAILABLE with etcd's permission denied", err)
		}
		auth.Grant("reader", etcdtest.Read(e.Target+"/"))
		granted := time.Now()
		e.Reaches(conn, "one")
		e.Within("calls succeed after the grant", granted, 5*time.Second)
	})
}

func TestG4UnknownService(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		e.Target = "foo/bar"
		client := e.ClientWith()
		_, err := client.Get(e.Ctx, "foo/bar/") // a connection that takes a second to come up would be the error
		e.OK(err)
		conn := e.DialBy(e.BuilderOf(client), "etcd:///foo/bar")
		began := time.Now()
		_, err = e.Call(conn)
		e.Within("a call fails", began, 2*time.Second)
		for _, part := range []string{`"foo/bar"`, `"foo/bar/"`, "revision 1"} {
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), part) {
				e.Failf("got %v, want UNAVAILABLE naming %s", err, part)
			}
		}
		for range 2 {
			e.Serve("one")
			joined := time.Now()
			e.Reaches(conn, "one")
			e.Within("calls succeed after the first endpoint joined", joined, time.Second)
			e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("one")))
			e.Eventually(func() error {
				if _, err := e.Call(conn); err == nil {
					return fmt.Errorf("calls go on after the last endpoint went")
				}
				return nil
			})
		}
	})
}

func TestG7BadValues(t *testing.T) {
	t.Parallel()
	values := []struct{ name, value string }{
		{"not JSON", `127.0.0.1:80`},
		{"empty", ``},
		{"empty object", `{}`},
		{"null", `null`},
		{"array", `[]`},
		{"wrong type", `{"Addr":7}`},
		{"empty address", `{"Op":0,"Addr":"","Metadata":null}`},
		{"stored deletion", `{"Op":1,"Addr":"host-m:80"}`},
		{"unknown op", `{"Op":300,"Addr":"host-m:80"}`},
		{"nested brackets", `{"Addr":"host-m:80","Metadata":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`},
		{"1 MiB metadata", `{"Addr":"host-m:80","Metadata":"` + strings.Repeat("x", 1<<20) + `"}`},
		{"something behind", `{"Addr":"host-m:80"}{}`},
	}
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		good := func(id string) { e.Put(e.Key(id), fmt.Sprintf(`{"Addr":%q}`, lab.AddrOf(id))) }
		good("a")
		good("z")
		running := e.Resolve()
		shows := func(what string, c *lab.Channel, want ...string) {
			e.Eventually(func() error {
				if got := c.Addrs(); !slices.Equal(got, want) {
					return fmt.Errorf("%s: the channel was told %q, want %q", what, got, want)
				}
				return nil
			})
		}
		for _, v := range values {
			good("m")
			shows(v.name, running, lab.AddrOf("a"), lab.AddrOf("m"), lab.AddrOf("z"))
			e.Put(e.Key("m"), v.value)
			shows("running client, "+v.name, running, lab.AddrOf("a"), lab.AddrOf("z"))
			shows("fresh client, "+v.name, e.ResolveBy(e.BuilderOf(e.ClientWith()), e.Target), lab.AddrOf("a"), lab.AddrOf("z"))
			if !e.Ours() {
				continue
			}
			snap := lab.Follow(e.T, e.ClientWith(), e.Target).Holds("a", "z")
			if got := snap.Invalid(); len(got) != 1 || got[0].Key != e.Key("m") || got[0].Cause == nil {
				e.Failf("%s: invalid %+v, want one with a cause", v.name, got)
			}
		}
	})
}

func TestG8OneAddressTwice(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		const twice = "127.0.0.1:1"
		value := func(version string) string {
			return fmt.Sprintf(`{"Addr":%q,"Metadata":{"version":%q}}`, twice, version)
		}
		lab.Put(e.T, e.Client, e.Target, "x", nil)
		e.Put(e.Key("b"), value("b"))
		e.Put(e.Key("a"), value("a")) // the newest by CreateRevision
		e.Put(e.Key("b"), value("b, edited"))
		c := e.Resolve()
		e.Shows(c, twice, lab.AddrOf("x"))
		chosen := func(key string) {
			e.Eventually(func() error {
				for _, ep := range c.Last() {
					if inst := resolver.InstanceFromEndpoint(ep); inst != nil && inst.Addr == twice && inst.Key != key {
						return fmt.Errorf("chose %s, want %s", inst.Key, key)
					}
				}
				return nil
			})
		}
		chosen(e.Key("a"))
		lab.Remove(e.T, e.Client, e.Key("a"))
		chosen(e.Key("b"))
		e.Shows(c, twice, lab.AddrOf("x"))
		e.Put(e.Key("c"), value("c"))
		chosen(e.Key("c"))
		e.Shows(c, twice, lab.AddrOf("x"))
	})
}

func TestG9TargetSpellings(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	server := lab.StartServer(t, "one")
	for _, key := range []string{"a/one", "a b/one", "/a/one", "a?b/one"} {
		lab.PutValue(t, client, key, fmt.Sprintf(`{"Addr":%q}`, server.Addr))
	}
	for _, target := range []string{"etcd:///a", "etcd:///a/", "etcd:a", "etcd://authority/a", "etcd:///a%20b", "etcd:a%20b",
		"etcd:////a", "etcd:///%61", "etcd:///a%3Fb"} {
		t.Run(target, func(t *testing.T) {
			if _, err := lab.Call(t, lab.Dial(t, client, target)); err != nil {
				t.Error(err)
			}
		})
	}
	slowest := time.Duration(0)
	for _, target := range []string{"etcd:///", "etcd:", "etcd:////", "etcd://authority", "etcd:///a?colour=2", "etcd:///a?weight=x", "etcd:///a#b"} {
		t.Run(target, func(t *testing.T) {
			began := time.Now()
			_, err := lab.Call(t, lab.Dial(t, client, target), grpc.WaitForReady(false))
			if status.Code(err) == codes.OK || !strings.Contains(err.Error(), "invalid target") {
				t.Errorf("got %v, want a refusal", err)
			}
			slowest = max(slowest, time.Since(began))
		})
	}
	lab.Within(t, "the slowest refusal", time.Now().Add(-slowest), 100*time.Millisecond)
}

// Channels with gRPC's default policy each pick one server; together they use all.
func TestDefaultPolicySpreads(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, lab.Start(t, etcdtest.Options{}), "svc")
	e.Serve("one", "two", "three")
	picked := make(map[string]int)
	for range 60 {
		name, err := lab.Call(t, lab.Dial(t, e.Client, "etcd:///svc"))
		if err != nil {
			t.Fatal(err)
		}
		picked[name]++
	}
	t.Logf("60 channels: %v", picked)
	for _, name := range []string{"one", "two", "three"} {
		if picked[name] < 6 { // by chance once in 10,000 runs
			t.Errorf("%d of 60 channels went to %s", picked[name], name)
		}
	}
}

// A channel's cold start is one request, the service config included, and that of another service
// on the same client is one as well.
func TestColdStartIsOneRequest(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
	member, builder := e.Etcd.Member(0), e.Builder()
	asked := func(method string) float64 {
		return member.Metric(t, "grpc_server_handled_total", "grpc_method="+method)
	}
	for _, row := range []struct {
		service      string
		txns, ranges float64
	}{{"svc-1", 1, 0}, {"svc-2", 0, 1}} {
		for i := range 1000 {
			e.Put(fmt.Sprintf("%s/%d", row.service, i), fmt.Sprintf(`{"Addr":"10.0.0.1:%d"}`, i+1))
		}
		txns, ranges, streams := asked("Txn"), asked("Range"), asked("RangeStream")
		c := e.ResolveBy(builder, row.service)
		e.Eventually(func() error {
			if n := len(c.Addrs()); n != 1000 {
				return fmt.Errorf("%d addresses, want 1,000", n)
			}
			return nil
		})
		if txns, ranges, streams = asked("Txn")-txns, asked("Range")-ranges, asked("RangeStream")-streams; txns != row.txns || ranges != row.ranges || streams != 0 {
			t.Errorf("%s: %v transactions, %v ranges and %v streams, want %v, %v and none", row.service, txns, ranges, streams, row.txns, row.ranges)
		}
	}
}
