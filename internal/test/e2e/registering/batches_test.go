// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package registering_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

const batched = 300 // registrations at once: more than two transactions may write

// register begins registrations of svc/<i> at once.
func register(t *testing.T, r *rollcall.Registrar, from, to int) (regs []*rollcall.Registration) {
	t.Helper()
	for i := from; i < to; i++ {
		g, err := r.Register("svc", rollcall.Endpoint{ID: fmt.Sprint(i), Addr: lab.AddrOf(fmt.Sprint(i))})
		if err != nil {
			t.Fatal(err)
		}
		regs = append(regs, g)
	}
	return regs
}

// writtenOnce waits for registrations, and fails if one of their keys was written more than once.
func writtenOnce(t *testing.T, direct *clientv3.Client, regs []*rollcall.Registration) {
	t.Helper()
	for _, g := range regs {
		if err := g.Wait(lab.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := direct.Get(lab.Context(t), "svc/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	stands := make(map[string]*mvccpb.KeyValue)
	for _, kv := range resp.Kvs {
		stands[string(kv.Key)] = kv
	}
	for _, g := range regs {
		if kv := stands[g.Key()]; kv == nil || kv.Version != 1 || !holds(g, stored(t, g.ID(), nil))(kv) {
			t.Errorf("%s is %v, want it written once", g.Key(), kv)
		}
	}
}

// Of many endpoints that are registered at once, one that etcd refuses fails alone, with its own
// error, and one whose key exists is taken over.
func TestOneOfABatch(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		flags    []string
		service  string // of the one
		metadata string
		want     error // nil: it is registered
	}{
		{"forbidden", nil, "other", "", rpctypes.ErrPermissionDenied},
		{"too large", []string{"--max-request-bytes=100000"}, "svc", strings.Repeat("x", 200_000), rpctypes.ErrRequestTooLarge},
		{"taken over", nil, "svc", "", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.want == rpctypes.ErrPermissionDenied && etcdtest.Version() == "3.4" {
				t.Skip("etcd 3.4.31 checks no rights in transactions within transactions; 3.4.42 does")
			}
			etcd := lab.Start(t, etcdtest.Options{Flags: row.flags})
			auth := etcd.EnableAuth(t)
			auth.AddUser("registrar", "secret", etcdtest.ReadWrite("svc/"), etcdtest.Read("_grpc_config/"))
			root := auth.Client(t, "root")
			lease, err := root.Grant(lab.Context(t), 3600)
			if err != nil {
				t.Fatal(err)
			}
			if row.want == nil {
				if _, err := root.Put(lab.Context(t), "svc/one", stored(t, "before", nil), clientv3.WithLease(lease.ID)); err != nil {
					t.Fatal(err)
				}
			}
			r := newRegistrar(t, auth.Client(t, "registrar"))
			regs := register(t, r, 0, batched/2)
			one, err := r.Register(row.service, rollcall.Endpoint{ID: "one", Addr: lab.AddrOf("one"), Metadata: row.metadata})
			if err != nil {
				t.Fatal(err)
			}
			regs = append(regs, register(t, r, batched/2, batched)...)
			writtenOnce(t, root, regs)
			if row.want == nil {
				becomes(t, root, one.Key(), "taken over", holds(one, stored(t, "one", row.metadata)))
			} else if state := reaches(t, one, rollcall.Registering, row.want); !strings.Contains(state.Err.Error(), one.Key()) {
				t.Errorf("failed with %v, want an error that names its key", state.Err)
			}
			for _, g := range regs {
				if state, _ := g.State(); state.Phase != rollcall.Registered || state.Err != nil {
					t.Fatalf("%s is %v, %v", g.Key(), state.Phase, state.Err)
				}
			}
		})
	}
}

// A server that takes few operations in a transaction is sent few.
func TestFewOperations(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"1", "16"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			etcd := lab.Start(t, etcdtest.Options{Flags: []string{"--max-txn-ops=" + limit}})
			direct := etcd.Client(t)
			r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
			regs := register(t, r, 0, batched)
			writtenOnce(t, direct, regs)
			for _, g := range regs {
				if state, _ := g.State(); state.Err != nil {
					t.Fatalf("%s: %v", g.Key(), state.Err)
				}
			}
			closesAll(t, direct, r, regs)
		})
	}
}

// An outage while endpoints are being registered leaves none out, and writes none twice.
func TestOutageDuringABatch(t *testing.T) {
	t.Parallel()
	t.Run("answers lost", func(t *testing.T) {
		t.Parallel()
		etcd := lab.Start(t, etcdtest.Options{})
		answers := &lossy{left: make(map[string]int)}
		cfg := rollcall.ClientConfig(etcd.Endpoints()...)
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(answers.unary))
		r, err := rollcall.NewRegistrar(lab.Directory(t, lab.ClientOf(t, cfg)), rollcall.RegistrarOptions{NoOrigin: true, TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		answers.lose("Txn", 3)
		writtenOnce(t, etcd.Client(t), register(t, r, 0, 1000))
	})
	t.Run("cut off", func(t *testing.T) {
		t.Parallel()
		etcd := lab.Start(t, etcdtest.Options{})
		link := etcdtest.NewLink(t, etcd.Endpoints()[0])
		link.Delay(5 * time.Millisecond)
		r, err := rollcall.NewRegistrar(lab.Directory(t, lab.Client(t, link.Addr())), rollcall.RegistrarOptions{NoOrigin: true, TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		regs := register(t, r, 0, 5000)
		if err := regs[0].Wait(lab.Context(t)); err != nil {
			t.Fatal(err)
		}
		link.Cut()
		left := 0
		for _, g := range regs {
			if state, _ := g.State(); state.Phase != rollcall.Registered {
				left++
			}
		}
		t.Logf("cut off with %d of %d registered", len(regs)-left, len(regs))
		if left == 0 {
			t.Error("the test shows nothing: all were registered before the cut")
		}
		time.Sleep(time.Second)
		link.Mend()
		writtenOnce(t, etcd.Client(t), regs)
	})
}

// Many registrations are closed as quickly as they are registered, each marked before it goes.
func TestCloseOfMany(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
	began := time.Now()
	regs := registerMany(t, r, "svc", 1000)
	t.Logf("registered in %v", time.Since(began))
	closesAll(t, etcd.Client(t), r, regs)
}

// closesAll closes all registrations, and fails unless each key is marked before it is deleted.
func closesAll(t *testing.T, direct *clientv3.Client, r *rollcall.Registrar, regs []*rollcall.Registration) {
	t.Helper()
	resp, err := direct.Get(lab.Context(t), "svc/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	events := direct.Watch(lab.Context(t), "svc/", clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1))
	before, began := r.Stats(), time.Now()
	for _, g := range regs {
		g.Close()
	}
	for _, g := range regs {
		if err := g.Shutdown(lab.Context(t)); err != nil && !errors.Is(err, rollcall.ErrClosed) {
			t.Fatal(err)
		}
	}
	t.Logf("%d closed in %v", len(regs), time.Since(began))
	if writes := r.Stats().Writes - before.Writes; writes != 2*uint64(len(regs)) {
		t.Errorf("%d writes to close %d, want the mark and the deletion of each", writes, len(regs))
	}
	marked := make(map[string]bool)
	for left := len(regs); left > 0; {
		for _, e := range (<-events).Events {
			key := string(e.Kv.Key)
			switch {
			case e.Type == clientv3.EventTypePut:
				marked[key] = strings.Contains(string(e.Kv.Value), rollcall.StatusDraining)
			case !marked[key]:
				t.Errorf("%s was deleted without a mark", key)
				left--
			default:
				left--
			}
		}
	}
}
