// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// serve starts a server and writes its endpoint.
func serve(t *testing.T, client *clientv3.Client, name string, opts ...clientv3.OpOption) {
	t.Helper()
	value, err := rollcall.Encode(lab.StartServer(t, name).Addr, nil)
	if err == nil {
		_, err = client.Put(lab.Context(t), "svc/"+name, string(value), opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// dialWith returns a channel through a Directory with options of its own.
func dialWith(t *testing.T, client *clientv3.Client, dopts rollcall.DirectoryOptions, ropts resolver.Options) (*grpc.ClientConn, *rollcall.Directory) {
	t.Helper()
	d, err := rollcall.NewDirectory(client, dopts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	b, err := resolver.NewBuilderWithOptions(d, ropts)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///svc", grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, d
}

func TestG3IdleThenEtcdStops(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	serve(t, client, "one")
	idling := lab.Dial(t, client, "etcd:///svc", grpc.WithIdleTimeout(time.Second))
	if _, err := lab.Call(t, idling); err != nil {
		t.Fatal(err)
	}
	closed := lab.Dial(t, client, "etcd:///svc")
	if _, err := lab.Call(t, closed); err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for deadline := time.Now().Add(lab.WaitMost); idling.GetState().String() != "IDLE"; {
		if time.Now().After(deadline) {
			t.Fatal("the channel does not go idle")
		}
		time.Sleep(50 * time.Millisecond)
	}
	etcd.Member(0).Stop()
	began := time.Now()
	if _, err := lab.Call(t, idling); err != nil {
		t.Errorf("woken from idle while etcd is down: %v", err)
	}
	lab.Within(t, "first call of a channel that was idle", began, time.Second)
	began = time.Now()
	if _, err := lab.Call(t, lab.Dial(t, client, "etcd:///svc")); err != nil {
		t.Errorf("a new channel while etcd is down: %v", err)
	}
	lab.Within(t, "first call of a new channel", began, time.Second)

	serve2 := lab.StartServer(t, "two")
	etcd.Member(0).Start()
	etcd.WaitReady()
	lab.PutValue(t, client, "svc/two", fmt.Sprintf(`{"Addr":%q}`, serve2.Addr))
	lab.Remove(t, client, "svc/one")
	for deadline := time.Now().Add(lab.WaitMost); lab.Heals(t, idling) != "two"; {
		if time.Now().After(deadline) {
			t.Fatal("the channel never heard of what came later")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestG5RestartWhileEtcdIsDown(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	opts := rollcall.DirectoryOptions{CacheDir: t.TempDir()}
	client := lab.Client(t, etcd.Endpoints()...)
	serve(t, client, "one")
	first, d := dialWith(t, client, opts, resolver.Options{})
	if _, err := lab.Call(t, first); err != nil {
		t.Fatal(err)
	}
	written(t, opts.CacheDir)
	first.Close()
	d.Close()
	client.Close()
	etcd.Member(0).Stop()

	began := time.Now()
	client = lab.Client(t, etcd.Endpoints()...) // as a process that starts has it
	second, d := dialWith(t, client, opts, resolver.Options{})
	if _, err := lab.Call(t, second); err != nil {
		t.Errorf("after a restart while etcd is down: %v", err)
	}
	lab.Within(t, "first call after a restart", began, time.Second)
	sub, err := d.Subscribe("svc")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if stale := sub.Latest().Staleness(); stale == nil || stale.Since.After(began) {
		t.Errorf("stale %+v, want since before the restart", stale)
	}
	etcd.Member(0).Start()
	etcd.WaitReady()
	for deadline := time.Now().Add(lab.WaitMost); sub.Latest().Staleness() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still stale: %v", sub.Latest().Staleness().Cause)
		}
	}
}

// All servers live on, but nobody renews their leases: they are called all the same, for
// as long as the hold lasts.
func TestG6FleetLosesItsLeases(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	const longest = 10 * time.Second
	held, d := dialWith(t, client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: longest}}, resolver.Options{})
	plain := lab.Dial(t, client, "etcd:///svc")
	lease, err := client.Grant(lab.Context(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		serve(t, client, fmt.Sprint("server-", i), clientv3.WithLease(lease.ID))
	}
	lab.Heals(t, held)
	lab.Heals(t, plain)
	if _, err := client.Revoke(lab.Context(t), lease.ID); err != nil { // what etcd does when a lease ends
		t.Fatal(err)
	}
	lost := time.Now()
	fails(t, plain)
	var got rollcall.Stats
	for time.Since(lost) < longest*8/10 {
		got = d.Stats() // the call may take longer than the hold lasts
		if _, err := lab.Call(t, held); err != nil {
			t.Fatalf("%v after the loss: %v", time.Since(lost), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got.Retained != 5 || got.SelfPreservations != 1 {
		t.Errorf("stats %+v, want 5 held", got)
	}
	fails(t, held)
	if took := time.Since(lost); took < longest {
		t.Errorf("held for %v only", took)
	}
	lab.Within(t, "given up after the longest hold", lost.Add(longest), time.Second)

	// A rollout that drains first is no loss.
	r, err := rollcall.NewRegistrar(lab.Directory(t, client), rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := r.Register("svc", rollcall.Endpoint{ID: "last", Addr: lab.StartServer(t, "last").Addr})
	if err != nil {
		t.Fatal(err)
	}
	lab.Heals(t, held)
	if err := g.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	fails(t, held)
	if err := r.Shutdown(lab.Context(t)); err != nil {
		t.Error(err)
	}
	if got := d.Stats(); got.Retained != 0 || got.SelfPreservations != 1 {
		t.Errorf("stats %+v, want nothing held", got)
	}
}

// fails calls until a call fails.
func fails(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	for deadline := time.Now().Add(lab.WaitMost); ; time.Sleep(10 * time.Millisecond) {
		if _, err := lab.Call(t, conn); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("calls go on")
		}
	}
}

func TestG10HostileAddresses(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	hostile := []string{"unix:///var/run/docker.sock", "unix:x", "unix-abstract:x", "169.254.169.254:80", "[fe80::1]:80", "10.0.0.1",
		"http://10.0.0.1:80", "dns:///evil:80", "0.0.0.0:80", "passthrough:///x:1", "host:0", "vsock:1:2", "a b:1"}
	for i, addr := range hostile {
		lab.PutValue(t, client, fmt.Sprintf("svc/hostile-%02d", i), fmt.Sprintf(`{"Addr":%q,"Metadata":{"ServerName":"evil"}}`, addr))
	}
	e := lab.NewEnv(t, lab.Rollcall, etcd, "svc")
	channel := e.Resolve()
	conn := lab.Dial(t, client, "etcd:///svc")
	_, err := lab.Call(t, conn)
	if want := fmt.Sprintf("all %d are disallowed", len(hostile)); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want UNAVAILABLE with %q", err, want)
	}
	serve(t, client, "one")
	lab.Heals(t, conn)
	f := lab.Follow(t, client, "svc")
	f.Until("with all", func(seen []*rollcall.Snapshot) bool {
		return len(seen) > 0 && seen[len(seen)-1].Len() == len(hostile)+1
	})
	taken, refused := f.Sub.Latest().Partition(nil)
	if len(taken) != 1 || len(refused) != len(hostile) {
		t.Errorf("%d taken, %d refused", len(taken), len(refused))
	}
	for _, ref := range refused {
		if ref.Cause == nil || ref.Instance.Key == "" {
			t.Errorf("refused without a cause or key: %+v", ref)
		}
	}
	e.Shows(channel, taken[0].Addr)
	for _, ep := range channel.Last() {
		if name := ep.Addresses[0].ServerName; name != "" {
			t.Errorf("server name %q from the registry", name)
		}
	}

	// The opt-in list narrows it further.
	narrow, _ := dialWith(t, client, rollcall.DirectoryOptions{}, resolver.Options{Policy: rollcall.AllowCIDR(netip.MustParsePrefix("10.0.0.0/8"))})
	if _, err := lab.Call(t, narrow); err == nil || !strings.Contains(err.Error(), "are disallowed, the first: ") {
		t.Errorf("127.0.0.1 outside of 10.0.0.0/8: %v", err)
	}
	wide, _ := dialWith(t, client, rollcall.DirectoryOptions{}, resolver.Options{Policy: rollcall.AllowCIDR(netip.MustParsePrefix("127.0.0.0/8"))})
	lab.Heals(t, wide)
}
