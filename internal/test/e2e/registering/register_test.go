// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package registering_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
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
)

// leaseTTL is the registrations' TTL here: the members' elections allow no less than 2 s.
const leaseTTL = 3 * time.Second

// newRegistrar returns a registrar with leaseTTL that is closed when the test ends.
func newRegistrar(t *testing.T, client *clientv3.Client) *rollcall.Registrar {
	t.Helper()
	r, err := rollcall.NewRegistrar(lab.Directory(t, client), rollcall.RegistrarOptions{NoOrigin: true, TTL: leaseTTL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close) // etcd may be gone by now
	return r
}

// enrol registers svc/<id> and waits until it is in etcd.
func enrol(t *testing.T, r *rollcall.Registrar, id string, metadata any) *rollcall.Registration {
	t.Helper()
	g, err := r.Register("svc", rollcall.Endpoint{ID: id, Addr: lab.AddrOf(id), Metadata: metadata})
	if err == nil {
		err = g.Wait(lab.Context(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func stored(t *testing.T, id string, metadata any) string {
	t.Helper()
	value, err := rollcall.Encode(lab.AddrOf(id), metadata)
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

// becomes waits until what a key holds, nil for nothing, satisfies a condition.
func becomes(t *testing.T, client *clientv3.Client, key, what string, met func(kv *mvccpb.KeyValue) bool) *mvccpb.KeyValue {
	t.Helper()
	ctx := lab.Context(t)
	var kv *mvccpb.KeyValue
	for {
		resp, err := client.Get(ctx, key)
		if err == nil {
			kv = nil
			if len(resp.Kvs) > 0 {
				kv = resp.Kvs[0]
			}
			if met(kv) {
				return kv
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s did not become %s: %v (%v)", key, what, kv, err)
		}
	}
}

// holds returns a condition: this value, under the lease that the registration has.
func holds(g *rollcall.Registration, value string) func(kv *mvccpb.KeyValue) bool {
	return func(kv *mvccpb.KeyValue) bool {
		state, _ := g.State()
		return kv != nil && string(kv.Value) == value && kv.Lease != 0 && clientv3.LeaseID(kv.Lease) == state.Lease
	}
}

func gone(kv *mvccpb.KeyValue) bool { return kv == nil }

// reaches waits until a registration is in a phase, for a reason; nil is any.
func reaches(t *testing.T, g *rollcall.Registration, phase rollcall.Phase, why error) rollcall.State {
	t.Helper()
	ctx := lab.Context(t)
	for {
		state, changed := g.State()
		if state.Phase == phase && (why == nil || errors.Is(state.Err, why)) {
			return state
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s is %s (%v), not %s (%v)", g.Key(), state.Phase, state.Err, phase, why)
		}
	}
}

// keyLog records the events of a key as etcd's own watch tells them.
type keyLog struct {
	mu     sync.Mutex
	events []*clientv3.Event
}

func logKey(t *testing.T, client *clientv3.Client, key string) *keyLog {
	t.Helper()
	l := &keyLog{}
	ctx, cancel := context.WithCancel(context.Background())
	opened := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for resp := range client.Watch(ctx, key, clientv3.WithCreatedNotify()) {
			if resp.Created {
				close(opened)
			}
			l.mu.Lock()
			l.events = append(l.events, resp.Events...)
			l.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	<-opened
	return l
}

func (l *keyLog) seen() []*clientv3.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func TestL1CutOffLongerThanTTL(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	g := enrol(t, newRegistrar(t, lab.Client(t, link.Addr())), "a", map[string]int{"weight": 3})
	before, _ := g.State()

	link.Cut()
	cut := time.Now()
	becomes(t, direct, g.Key(), "gone", gone)
	if took := time.Since(cut); took < leaseTTL/2 {
		t.Errorf("gone after %v of a TTL of %v", took, leaseTTL)
	}
	if state := reaches(t, g, rollcall.Lost, nil); state.Err == nil || !strings.Contains(state.Err.Error(), link.Addr()) {
		t.Errorf("lost because of %v, want a reason that names %s", state.Err, link.Addr())
	}
	link.Mend()
	mended := time.Now()
	kv := becomes(t, direct, g.Key(), "back", func(kv *mvccpb.KeyValue) bool { return kv != nil })
	lab.Within(t, "back after mending", mended, 2*time.Second)
	if err := g.Wait(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	if got := string(kv.Value); got != stored(t, "a", map[string]int{"weight": 3}) {
		t.Errorf("value %s", got)
	}
	after, _ := g.State()
	if clientv3.LeaseID(kv.Lease) == before.Lease || clientv3.LeaseID(kv.Lease) != after.Lease {
		t.Errorf("lease %x, was %x, state says %x", kv.Lease, int64(before.Lease), int64(after.Lease))
	}
}

func TestL2DataLost(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	var regs []*rollcall.Registration
	for i := range 5 {
		r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
		for j := range 1 + 20*(i%2) { // more than are watched, in some
			regs = append(regs, enrol(t, r, fmt.Sprintf("%d-%d", i, j), nil))
		}
	}
	member := etcd.Member(0)
	member.Stop()
	member.Wipe()
	member.Start()
	etcd.WaitReady()
	ready := time.Now()
	for _, g := range regs {
		id := strings.TrimPrefix(g.Key(), "svc/")
		becomes(t, direct, g.Key(), "back", holds(g, stored(t, id, nil)))
	}
	lab.Within(t, "all back", ready, 2*time.Second)
	leases, err := direct.Leases(lab.Context(t))
	if err != nil || len(leases.Leases) != 5 {
		t.Errorf("leases %v, %v, want 5", leases, err)
	}
}

func TestL4OutageLongerThanTTL(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	g := enrol(t, newRegistrar(t, lab.Client(t, etcd.Endpoints()...)), "a", nil)
	member := etcd.Member(0)
	stopped := time.Now()
	member.Stop()
	time.Sleep(2 * leaseTTL)
	reaches(t, g, rollcall.Lost, nil)
	member.Start()
	etcd.WaitReady()
	ready := time.Now()
	t.Logf("%v from the stop until etcd was ready", ready.Sub(stopped))
	var hole time.Duration
	var since time.Time
	for time.Since(ready) < 3*leaseTTL {
		resp, err := direct.Get(lab.Context(t), g.Key())
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case len(resp.Kvs) > 0:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		default:
			hole = max(hole, time.Since(since))
		}
		time.Sleep(10 * time.Millisecond)
	}
	lab.Note(t, "longest hole: %v, bound 3s", hole.Round(time.Millisecond))
	if hole > 9*time.Second || !since.IsZero() {
		t.Errorf("a hole of %v, still open: %v", hole, !since.IsZero())
	}
	reaches(t, g, rollcall.Registered, nil)
}

func TestL5OwnKeyTouchedByOthers(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
	g := enrol(t, r, "a", nil)
	value := stored(t, "a", nil)

	etcd.Etcdctl(t, "del", g.Key())
	becomes(t, direct, g.Key(), "put back", holds(g, value))
	etcd.Etcdctl(t, "put", g.Key(), value)
	becomes(t, direct, g.Key(), "under a lease again", holds(g, value))

	// An operator's edit stays, also across the loss of the lease.
	state, _ := g.State()
	lease := fmt.Sprintf("%x", int64(state.Lease))
	edited := stored(t, "a", map[string]string{"status": "draining", "zone": "z1"})
	etcd.Etcdctl(t, "put", "--lease="+lease, g.Key(), edited)
	reaches(t, g, rollcall.Draining, nil)
	becomes(t, direct, g.Key(), "as edited", holds(g, edited))
	etcd.Etcdctl(t, "lease", "revoke", lease)
	becomes(t, direct, g.Key(), "healed as edited", func(kv *mvccpb.KeyValue) bool {
		return kv != nil && clientv3.LeaseID(kv.Lease) != state.Lease && string(kv.Value) == edited
	})
	reaches(t, g, rollcall.Draining, nil)

	// A successor has it for as long as it wants.
	grant, err := direct.Grant(lab.Context(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	successor := stored(t, "successor", nil)
	resp, err := direct.Put(lab.Context(t), g.Key(), successor, clientv3.WithLease(grant.ID))
	if err != nil {
		t.Fatal(err)
	}
	reaches(t, g, rollcall.Lost, rollcall.ErrSuperseded)
	time.Sleep(2 * leaseTTL)
	becomes(t, direct, g.Key(), "the successor's, untouched", func(kv *mvccpb.KeyValue) bool {
		return kv != nil && kv.ModRevision == resp.Header.Revision
	})
	reaches(t, g, rollcall.Lost, rollcall.ErrSuperseded)
	if _, err := direct.Revoke(lab.Context(t), grant.ID); err != nil {
		t.Fatal(err)
	}
	becomes(t, direct, g.Key(), "put back", holds(g, edited))
	reaches(t, g, rollcall.Draining, nil)
}

func TestL6LateDeregistration(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	old := enrol(t, newRegistrar(t, lab.Client(t, etcd.Endpoints()...)), "a", map[string]int{"version": 1})
	successor := enrol(t, newRegistrar(t, lab.Client(t, etcd.Endpoints()...)), "a", map[string]int{"version": 2})
	log := logKey(t, direct, successor.Key())
	if err := old.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * leaseTTL)
	becomes(t, direct, successor.Key(), "the successor's", holds(successor, stored(t, "a", map[string]int{"version": 2})))
	if seen := log.seen(); len(seen) != 0 {
		t.Errorf("the successor's key was touched: %v", seen)
	}

	// An operator's edit does not keep the key in.
	state, _ := successor.State()
	edited := stored(t, "a", map[string]int{"weight": 9})
	etcd.Etcdctl(t, "put", fmt.Sprintf("--lease=%x", int64(state.Lease)), successor.Key(), edited)
	if err := successor.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	resp, err := direct.Get(lab.Context(t), successor.Key())
	if err != nil || len(resp.Kvs) != 0 {
		t.Errorf("left: %v, %v", resp.Kvs, err)
	}
}

func TestL8KilledProcess(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	child := startChild(t, etcd.Endpoints()[0])
	becomes(t, direct, childKey, "there", func(kv *mvccpb.KeyValue) bool { return kv != nil })
	if err := child.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	becomes(t, direct, childKey, "gone", gone)
	lab.Within(t, "gone after the kill", killed, leaseTTL+2*time.Second)
}

func TestL10NoSpace(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{Flags: []string{"--quota-backend-bytes=8388608"}})
	direct := etcd.Client(t)
	r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
	before := enrol(t, r, "before", nil)
	filler := strings.Repeat("x", 1<<20)
	var err error
	for i := 0; err == nil && i < 50; i++ {
		_, err = direct.Put(lab.Context(t), fmt.Sprint("filler/", i), filler)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("etcd is not full: %v", err)
	}
	after, err := r.Register("svc", rollcall.Endpoint{Addr: lab.AddrOf("after")})
	if err != nil {
		t.Fatal(err)
	}
	reaches(t, after, rollcall.Registering, rpctypes.ErrNoSpace)
	time.Sleep(2 * leaseTTL)
	becomes(t, direct, before.Key(), "still there", holds(before, stored(t, "before", nil)))
	reaches(t, before, rollcall.Registered, nil)

	if _, err := direct.Delete(lab.Context(t), "filler/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	lab.Compact(t, direct)
	etcd.Etcdctl(t, "defrag")
	etcd.Etcdctl(t, "alarm", "disarm")
	if err := after.Wait(lab.Context(t)); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}

func TestL12UpdateIsOneEvent(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	g := enrol(t, newRegistrar(t, lab.Client(t, etcd.Endpoints()...)), "a", nil)
	before, _ := g.State()
	log := logKey(t, direct, g.Key())
	if err := g.Update(lab.Context(t), map[string]int{"weight": 7}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2*leaseTTL + time.Second) // go-micro: the node vanished after the TTL
	events := log.seen()
	if len(events) != 1 || !events[0].IsModify() || string(events[0].Kv.Value) != stored(t, "a", map[string]int{"weight": 7}) ||
		clientv3.LeaseID(events[0].Kv.Lease) != before.Lease {
		t.Errorf("events %v, want one change under lease %x", events, int64(before.Lease))
	}
	if state := reaches(t, g, rollcall.Registered, nil); state.Lease != before.Lease {
		t.Errorf("lease %x, was %x", int64(state.Lease), int64(before.Lease))
	}
}

// Closing one of several registrations leaves the others; closing the registrar ends
// the lease that they share.
func TestRegistrationsShareOneLease(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	r := newRegistrar(t, lab.Client(t, etcd.Endpoints()...))
	a, b := enrol(t, r, "a", nil), enrol(t, r, "b", nil)
	log := logKey(t, direct, a.Key())
	state, _ := a.State()
	if err := a.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	becomes(t, direct, a.Key(), "gone", gone)
	becomes(t, direct, b.Key(), "still there", holds(b, stored(t, "b", nil)))
	ttl, err := direct.TimeToLive(lab.Context(t), state.Lease)
	if err != nil || ttl.TTL <= 0 {
		t.Errorf("lease: %+v, %v", ttl, err)
	}
	if err := r.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	if ttl, err = direct.TimeToLive(lab.Context(t), state.Lease); err != nil || ttl.TTL != -1 {
		t.Errorf("lease after the registrar: %+v, %v, want -1", ttl, err)
	}
	becomes(t, direct, b.Key(), "gone", gone)
	events := log.seen()
	if len(events) != 2 || string(events[0].Kv.Value) != stored(t, "a", map[string]string{"status": "draining"}) ||
		events[1].Type != clientv3.EventTypeDelete {
		t.Errorf("events %v, want the mark and the deletion", events)
	}
}

// What follows runs a registration in a process of its own, which ends with its stdin.

const (
	childKey  = "svc/child"
	childFlag = "ROLLCALL_TEST_CHILD" // holds the address of etcd
)

// TestChildProcess is no test: it is what startChild runs.
func TestChildProcess(t *testing.T) {
	addr := os.Getenv(childFlag)
	if addr == "" {
		return
	}
	enrol(t, newRegistrar(t, lab.Client(t, addr)), "child", nil)
	fmt.Println("registered")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func startChild(t *testing.T, addr string) *os.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildProcess$")
	cmd.Env = append(os.Environ(), childFlag+"="+addr)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "registered" {
		t.Fatalf("child says %q, %v", line, err)
	}
	return cmd.Process
}
