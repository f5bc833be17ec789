// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package registering_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

// A create that is stuck in a frozen connection does not land once its registration has
// been closed by way of another member.
func TestL13LateCreates(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{Members: 3})
	direct := etcd.Client(t)
	var links []*etcdtest.Link
	var addrs []string
	for _, member := range etcd.Members()[:2] {
		link := etcdtest.NewLink(t, member.Addr())
		links, addrs = append(links, link), append(addrs, link.Addr())
	}
	r, err := rollcall.NewRegistrar(lab.Directory(t, lab.Client(t, addrs...)), rollcall.RegistrarOptions{NoOrigin: true, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown(lab.CleanupContext(t)) })
	stays := enrol(t, r, "stays", nil)
	before, _ := stays.State()
	others := stored(t, "operator", nil)
	if _, err := direct.Put(lab.Context(t), "svc/operator", others, clientv3.WithLease(before.Lease)); err != nil {
		t.Fatal(err)
	}

	links[0].Freeze()
	frozen := time.Now()
	var regs []*rollcall.Registration
	for i := range 16 {
		id := fmt.Sprint("ghost-", i)
		g, err := r.Register("svc", rollcall.Endpoint{ID: id, Addr: lab.AddrOf(id)})
		if err != nil {
			t.Fatal(err)
		}
		regs = append(regs, g)
	}
	time.Sleep(500 * time.Millisecond) // the creates are under way
	var closing sync.WaitGroup
	for _, g := range regs {
		closing.Go(func() {
			if err := g.Shutdown(lab.Context(t)); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	closing.Wait()
	lab.Within(t, "all closed after the freeze", frozen, 15*time.Second)
	links[0].Mend()
	thawed := time.Now()
	ghosts := func() []string {
		resp, err := direct.Get(lab.Context(t), "svc/ghost-", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, kv := range resp.Kvs {
			keys = append(keys, string(kv.Key))
		}
		return keys
	}
	for time.Since(thawed) < 5*time.Second {
		if keys := ghosts(); len(keys) > 0 {
			t.Fatalf("%v after the thaw there are %q", time.Since(thawed), keys)
		}
		time.Sleep(50 * time.Millisecond)
	}
	becomes(t, direct, stays.Key(), "still there", holds(stays, stored(t, "stays", nil)))
	becomes(t, direct, "svc/operator", "still there", func(kv *mvccpb.KeyValue) bool { return kv != nil && string(kv.Value) == others })
}

// What is called registered is in etcd, also when rights and the connection were both lost.
func TestL14StateIsTrue(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	auth := etcd.EnableAuth(t)
	auth.AddUser("server", "s", etcdtest.ReadWrite("svc/"))
	root := auth.Client(t, "root")
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	cfg := rollcall.ClientConfig(link.Addr())
	auth.As("server")(&cfg)
	g := enrol(t, newRegistrar(t, lab.ClientOf(t, cfg)), "a", nil)

	auth.Revoke("server", "svc/")
	link.Cut()
	becomes(t, root, g.Key(), "gone", gone)
	reaches(t, g, rollcall.Lost, nil)
	link.Mend()
	reaches(t, g, rollcall.Lost, rpctypes.ErrPermissionDenied)
	for began := time.Now(); time.Since(began) < 2*leaseTTL; time.Sleep(20 * time.Millisecond) {
		if state, _ := g.State(); state.Phase != rollcall.Lost || state.Lease != 0 {
			t.Fatalf("state %s under lease %x (%v), while etcd has no key", state.Phase, int64(state.Lease), state.Err)
		}
	}
	auth.Grant("server", etcdtest.ReadWrite("svc/"))
	granted := time.Now()
	becomes(t, root, g.Key(), "back", holds(g, stored(t, "a", nil)))
	lab.Within(t, "back after the grant", granted, 6*time.Second)
	reaches(t, g, rollcall.Registered, nil)
}

// What an operator has set stays, whatever the program does meanwhile.
func TestL15OperatorsEdits(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
	g := enrol(t, r, "a", map[string]string{"version": "1"})
	state, _ := g.State()
	lease := fmt.Sprintf("--lease=%x", int64(state.Lease))
	fields := func(pairs ...any) map[string]any {
		all := make(map[string]any)
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i].(string)] = pairs[i+1]
		}
		return all
	}
	update := func(metadata any) {
		t.Helper()
		if err := g.Update(lab.Context(t), metadata); err != nil {
			t.Fatal(err)
		}
	}
	becomesValue := func(what string, metadata any) {
		t.Helper()
		becomes(t, direct, g.Key(), what, holds(g, stored(t, "a", metadata)))
	}

	// A drain and a weight, then an update of something else.
	etcd.Etcdctl(t, "put", lease, g.Key(), stored(t, "a", fields("version", "1", "status", "draining", "weight", 9)))
	reaches(t, g, rollcall.Draining, nil)
	update(fields("version", "2"))
	becomesValue("updated, and drained still", fields("version", "2", "status", "draining", "weight", 9))
	// What the program says itself counts, but for the status.
	update(fields("version", "2", "weight", 3, "status", "serving"))
	becomesValue("of another weight, and drained still", fields("version", "2", "status", "draining", "weight", 3))
	update(fields("version", "2"))

	// The program takes it out and puts it in again, as a health flap does.
	if err := g.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	g = enrol(t, r, "a", fields("version", "2"))
	becomesValue("drained after a health flap", fields("version", "2", "status", "draining"))

	// A plain put, which takes the lease away, is taken under it as it is.
	plain := stored(t, "a", fields("version", "2", "weight", 5))
	etcd.Etcdctl(t, "put", g.Key(), plain)
	becomes(t, direct, g.Key(), "under the lease as it was put", holds(g, plain))
	reaches(t, g, rollcall.Registered, nil)
	// That was the undrain: the next update drains no more.
	update(fields("version", "3"))
	becomesValue("serving", fields("version", "3", "weight", 5))

	// A new process begins with what it wants itself.
	etcd.Etcdctl(t, "put", g.Key(), stored(t, "a", fields("status", "draining")))
	reaches(t, g, rollcall.Draining, nil)
	g = enrol(t, newRegistrar(t, lab.Client(t, etcd.Endpoints()...)), "a", fields("version", "4"))
	becomesValue("a new process's", fields("version", "4"))
}

// Keys that are deleted are soon back, however many there are and whatever the TTL.
func TestL16DeletedKeysOfMany(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	r, err := rollcall.NewRegistrar(lab.Directory(t, lab.Client(t, etcd.Endpoints()...)), rollcall.RegistrarOptions{NoOrigin: true, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown(lab.CleanupContext(t)) })
	regs := registerMany(t, r, "svc", lab.Size(2000, 200))
	for _, way := range []string{"del", "put without a lease"} {
		before, err := direct.Get(lab.Context(t), "svc/", clientv3.WithPrefix())
		if err != nil || len(before.Kvs) != len(regs) {
			t.Fatalf("%d keys, %v, want %d", len(before.Kvs), err, len(regs))
		}
		began := time.Now()
		for _, kv := range before.Kvs {
			if way == "del" {
				_, err = direct.Delete(lab.Context(t), string(kv.Key))
			} else {
				_, err = direct.Put(lab.Context(t), string(kv.Key), string(kv.Value))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range regs {
			id := strings.TrimPrefix(g.Key(), "svc/")
			becomes(t, direct, g.Key(), "back", holds(g, stored(t, id, nil)))
		}
		lab.Within(t, fmt.Sprintf("all of %d back after a %s", len(regs), way), began, 10*time.Second)
	}
}

// registerMany registers and waits until all are in etcd.
func registerMany(t *testing.T, r *rollcall.Registrar, service string, n int) (regs []*rollcall.Registration) {
	t.Helper()
	for i := range n {
		id := fmt.Sprint(i)
		g, err := r.Register(service, rollcall.Endpoint{ID: id, Addr: lab.AddrOf(id)})
		if err != nil {
			t.Fatal(err)
		}
		regs = append(regs, g)
	}
	for _, g := range regs {
		if err := g.Wait(lab.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	return regs
}

// A registrar that is closed while etcd is away leaves in bounded time, and its log says
// only what is known.
func TestL17ClosedWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	log := &logtest.Buffer{}
	r, err := rollcall.NewRegistrar(lab.Directory(t, lab.Client(t, link.Addr())), rollcall.RegistrarOptions{NoOrigin: true, TTL: 30 * time.Second, Logger: log.Logger(slog.LevelInfo)})
	if err != nil {
		t.Fatal(err)
	}
	g := enrol(t, r, "a", nil)
	link.Cut()
	cut := time.Now()
	err = r.Shutdown(context.Background())
	lab.Within(t, "closed", cut, 16*time.Second)
	if err == nil || !strings.Contains(err.Error(), g.Key()) || !strings.Contains(err.Error(), link.Addr()) {
		t.Errorf("close: %v, want an error that names the key and etcd", err)
	}
	becomes(t, direct, g.Key(), "there still", func(kv *mvccpb.KeyValue) bool { return kv != nil })
	said := false
	for _, line := range log.Lines() {
		t.Log(line)
		said = said || strings.Contains(line, "when its lease ends")
		if strings.Contains(line, "deregistered") {
			t.Errorf("the key stands, and the log says: %s", line)
		}
	}
	if !said {
		t.Error("nothing in the log says what becomes of the key")
	}
	becomes(t, direct, g.Key(), "gone with its lease", gone)
}

// Close takes a second at most while etcd is away, and the lease does the rest.
func TestCloseIsShortWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	r := newRegistrar(t, lab.Client(t, link.Addr()))
	g := enrol(t, r, "a", nil)
	link.Cut()
	cut := time.Now()
	g.Close()
	lab.Within(t, "the registration's close returned", cut, 100*time.Millisecond)
	r.Close()
	lab.Within(t, "closed", cut, 1500*time.Millisecond)
	if state, _ := g.State(); state.Phase != rollcall.Closed || state.Err == nil {
		t.Errorf("state %+v, want closed, and why it may be in etcd still", state)
	}
	becomes(t, direct, g.Key(), "gone with its lease", gone)
}

// A fleet whose leases have all expired comes back at a bounded rate, nothing twice.
func TestL18Fleet(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, etcd *etcdtest.Cluster, links []*etcdtest.Link, direct *clientv3.Client){
		"leases expired": func(t *testing.T, _ *etcdtest.Cluster, links []*etcdtest.Link, direct *clientv3.Client) {
			for _, link := range links {
				link.Cut()
			}
			becomes(t, direct, "svc/", "empty", func(*mvccpb.KeyValue) bool {
				resp, err := direct.Get(lab.Context(t), "svc", clientv3.WithPrefix(), clientv3.WithCountOnly())
				return err == nil && resp.Count == 0
			})
			for _, link := range links {
				link.Mend()
			}
		},
		"data lost": func(t *testing.T, etcd *etcdtest.Cluster, _ []*etcdtest.Link, _ *clientv3.Client) {
			member := etcd.Member(0)
			member.Stop()
			member.Wipe()
			member.Start()
			etcd.WaitReady()
		},
	} {
		t.Run(name, func(t *testing.T) {
			etcd := lab.Start(t, etcdtest.Options{})
			direct := etcd.Client(t)
			var rate lab.Rate
			var links []*etcdtest.Link
			var regs []*rollcall.Registration
			process := func(service string, n int) {
				link := etcdtest.NewLink(t, etcd.Endpoints()[0])
				links = append(links, link)
				cfg := rollcall.ClientConfig(link.Addr())
				rate.Count(&cfg)
				regs = append(regs, registerMany(t, newRegistrar(t, lab.ClientOf(t, cfg)), service, n)...)
			}
			process("svc", lab.Size(500, 50))
			for i := range lab.Size(50, 5) {
				process(fmt.Sprint("svc-", i), 10)
			}
			lose(t, etcd, links, direct)
			back := time.Now()
			for _, g := range regs {
				id := g.Key()[strings.LastIndexByte(g.Key(), '/')+1:]
				becomes(t, direct, g.Key(), "back", holds(g, stored(t, id, nil)))
			}
			lab.Within(t, fmt.Sprintf("%s: all %d of %d processes back", name, len(regs), len(links)), back, 5*time.Second)
			time.Sleep(time.Second)
			now := time.Now()
			_, grants := rate.Between(back, now, "LeaseGrant")
			_, puts := rate.Between(back, now, "Txn")
			lab.Note(t, "%s: at most %.0f grants and %.0f transactions a second", name, grants, puts)
			// Each process asks for one lease and writes each key once, but for what it tried in
			// vain while etcd was coming back.
			total := func(method string) int {
				average, _ := rate.Between(back, now, method)
				return int(average*now.Sub(back).Seconds() + 0.5)
			}
			if n, most := total("LeaseGrant"), len(links)*3/2+1; n > most {
				t.Errorf("%d grants for %d leases, want %d at most", n, len(links), most)
			}
			if n, most := total("Txn"), len(regs)+32*len(links); n > most {
				t.Errorf("%d transactions for %d keys, want %d at most", n, len(regs), most)
			}
			all, err := direct.Get(lab.Context(t), "svc", clientv3.WithPrefix())
			if err != nil || len(all.Kvs) != len(regs) {
				t.Errorf("%d keys, %v, want %d", len(all.Kvs), err, len(regs))
			}
			for _, kv := range all.Kvs {
				if kv.Version != 1 {
					t.Errorf("%s was written %d times", kv.Key, kv.Version)
				}
			}
			leases, err := direct.Leases(lab.Context(t))
			if err != nil || len(leases.Leases) != len(links) {
				t.Errorf("%d leases, %v, want %d", len(leases.Leases), err, len(links))
			}
		})
	}
}
