// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

func TestG1EtcdAwayAtBuild(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	server := lab.StartServer(t, "one")
	value, _ := rollcall.Encode(server.Addr, nil)
	lab.PutValue(t, etcd.Client(t), "svc/one", string(value))

	cut := etcdtest.NewLink(t, etcd.Endpoints()[0])
	cut.Cut()
	frozen := etcdtest.NewLink(t, etcd.Endpoints()[0])
	frozen.Freeze()
	for _, row := range []struct {
		name, addr string
		link       *etcdtest.Link // nil: does not heal
		cause      string
	}{
		{"down", cut.Addr(), cut, "connection refused"},
		{"black hole", frozen.Addr(), frozen, "no answer from etcd"},
		{"mute", lab.Mute(t), nil, "no answer from etcd"},
	} {
		t.Run(row.name, func(t *testing.T) {
			client := lab.Client(t, row.addr)
			began := time.Now()
			conn := lab.Dial(t, client, "etcd:///svc")
			conn.Connect()
			built := time.Since(began)
			_, err := lab.Call(t, conn)
			failed := time.Since(began)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), row.cause) {
				t.Errorf("got %v, want UNAVAILABLE with %q", err, row.cause)
			}
			if !strings.Contains(fmt.Sprint(err), row.addr) {
				t.Errorf("the error does not name %s: %v", row.addr, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			first := lab.Dial(t, lab.Client(t, row.addr), "etcd:///svc")
			if _, err := lab.CallNamed(ctx, first); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("a deadline before anything is known: got %v, want DEADLINE_EXCEEDED", err)
			}
			if row.link != nil {
				row.link.Mend()
				mended := time.Now()
				lab.Heals(t, conn)
				t.Logf("healed after %v", time.Since(mended))
			}
			began = time.Now()
			conn.Close()
			closed := time.Since(began)
			t.Logf("built in %v, failed after %v, closed in %v", built, failed, closed)
			if failed > 10*time.Second || closed > time.Second {
				t.Errorf("failed after %v, closed in %v", failed, closed)
			}
		})
	}
}

func TestG2NoPermissionAtBuild(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	server := lab.StartServer(t, "one")
	value, _ := rollcall.Encode(server.Addr, nil)
	root := lab.WithAuth(t, etcd)
	lab.PutValue(t, root, "svc/one", string(value))

	cfg := rollcall.ClientConfig(etcd.Endpoints()...)
	cfg.Username, cfg.Password = "reader", "reader-pw"
	conn := lab.Dial(t, lab.ClientOf(t, cfg), "etcd:///svc")
	_, err := lab.Call(t, conn)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("got %v, want UNAVAILABLE with etcd's permission denied", err)
	}
	if _, err := root.RoleGrantPermission(lab.Context(t), "reader", "svc/", clientv3.GetPrefixRangeEnd("svc/"),
		clientv3.PermissionType(clientv3.PermRead)); err != nil {
		t.Fatal(err)
	}
	lab.Heals(t, conn)
}

func TestG4UnknownService(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	conn := lab.Dial(t, client, "etcd:///foo/bar")
	began := time.Now()
	_, err := lab.Call(t, conn)
	t.Logf("failed after %v: %v", time.Since(began), err)
	for _, part := range []string{`"foo/bar"`, `"foo/bar/"`, "revision 1"} {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want UNAVAILABLE naming %s", err, part)
		}
	}
	server := lab.StartServer(t, "one")
	value, _ := rollcall.Encode(server.Addr, nil)
	lab.PutValue(t, client, "foo/bar/one", string(value))
	lab.Heals(t, conn)
	lab.Remove(t, client, "foo/bar/one")
	deadline := time.Now().Add(lab.WaitMost)
	for err = nil; err == nil; _, err = lab.Call(t, conn) {
		if time.Now().After(deadline) {
			t.Fatal("calls go on after the last endpoint went")
		}
	}
	lab.PutValue(t, client, "foo/bar/one", string(value))
	lab.Heals(t, conn)
}

func TestG7BadValues(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	running := lab.Follow(t, client, "svc")
	good := func(id string) { lab.Put(t, client, "svc", id, nil) }
	good("a")
	good("z")
	running.Holds("a", "z")
	for name, value := range map[string]string{
		"not JSON":         `127.0.0.1:80`,
		"empty":            ``,
		"empty object":     `{}`,
		"null":             `null`,
		"array":            `[]`,
		"wrong type":       `{"Addr":7}`,
		"empty address":    `{"Op":0,"Addr":"","Metadata":null}`,
		"stored deletion":  `{"Op":1,"Addr":"host-m:80"}`,
		"unknown op":       `{"Op":300,"Addr":"host-m:80"}`,
		"nested brackets":  `{"Addr":"host-m:80","Metadata":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`,
		"1 MiB metadata":   `{"Addr":"host-m:80","Metadata":"` + strings.Repeat("x", 1<<20) + `"}`,
		"something behind": `{"Addr":"host-m:80"}{}`,
	} {
		t.Run(name, func(t *testing.T) {
			good("m")
			running.Holds("a", "m", "z")
			lab.PutValue(t, client, "svc/m", value)
			for who, f := range map[string]*lab.Follower{"running": running, "fresh": lab.Follow(t, client, "svc")} {
				snap := f.Holds("a", "z")
				if got := snap.Rejected(); len(got) != 1 || got[0].Key != "svc/m" || got[0].Cause == nil {
					t.Errorf("%s client: rejected %+v, want svc/m with a cause", who, got)
				}
			}
		})
	}
	lab.Remove(t, client, "svc/m")
	running.Until("without rejected", func(seen []*rollcall.Snapshot) bool { return len(seen[len(seen)-1].Rejected()) == 0 })
}

func TestG8OneAddressTwice(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	e := lab.NewEnv(t, lab.Rollcall, etcd, "svc")
	lab.Put(t, client, "svc", "x", nil)
	for _, id := range []string{"b", "a"} { // a is the newest by CreateRevision
		lab.PutValue(t, client, rollcall.Key("svc", id), `{"Addr":"127.0.0.1:1","Metadata":{"version":"`+id+`"}}`)
	}
	lab.PutValue(t, client, "svc/b", `{"Addr":"127.0.0.1:1","Metadata":{"version":"b, edited"}}`)
	c := e.Resolve()
	e.Shows(c, "127.0.0.1:1", lab.AddrOf("x"))
	for _, ep := range c.Last() {
		if inst := resolver.InstanceOf(ep); inst.Addr == "127.0.0.1:1" && inst.Key != "svc/a" {
			t.Errorf("chose %s, want the newest, svc/a", inst.Key)
		}
	}
	lab.Remove(t, client, "svc/a")
	e.Eventually(func() error {
		for _, ep := range c.Last() {
			if inst := resolver.InstanceOf(ep); inst.Key == "svc/b" {
				return nil
			}
		}
		return fmt.Errorf("svc/b did not take over: %v", c.Addrs())
	})
	e.Shows(c, "127.0.0.1:1", lab.AddrOf("x"))
}

func TestG9TargetSpellings(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	server := lab.StartServer(t, "one")
	value, _ := rollcall.Encode(server.Addr, nil)
	for _, key := range []string{"a/one", "a b/one", "/a/one", "a?b/one"} {
		lab.PutValue(t, client, key, string(value))
	}
	for _, target := range []string{"etcd:///a", "etcd:///a/", "etcd:a", "etcd://authority/a", "etcd:///a%20b", "etcd:a%20b",
		"etcd:////a", "etcd:///%61", "etcd:///a%3Fb"} {
		t.Run(target, func(t *testing.T) {
			if _, err := lab.Call(t, lab.Dial(t, client, target)); err != nil {
				t.Error(err)
			}
		})
	}
	for _, target := range []string{"etcd:///", "etcd:", "etcd:////", "etcd://authority", "etcd:///a?version=2", "etcd:///a#b"} {
		t.Run(target, func(t *testing.T) {
			began := time.Now()
			_, err := lab.Call(t, lab.Dial(t, client, target), grpc.WaitForReady(false))
			if status.Code(err) == codes.OK || time.Since(began) > 2*time.Second || !strings.Contains(err.Error(), "invalid target") {
				t.Errorf("got %v after %v, want a refusal at once", err, time.Since(began))
			}
		})
	}
}

// Channels with gRPC's default policy each pick one server; together they use all.
func TestDefaultPolicySpreads(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	for _, name := range []string{"one", "two", "three"} {
		value, _ := rollcall.Encode(lab.StartServer(t, name).Addr, nil)
		lab.PutValue(t, client, "svc/"+name, string(value))
	}
	picked := make(map[string]int)
	for range 60 {
		name, err := lab.Call(t, lab.Dial(t, client, "etcd:///svc"))
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
