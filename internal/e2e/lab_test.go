// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// waitMost bounds every wait of a test; it is no promise. Promises are asserted by
// order and convergence, and their times are logged.
const waitMost = 60 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), waitMost)
	t.Cleanup(cancel)
	return ctx
}

// rollcallClient is a client with Rollcall's defaults, closed when the test ends.
func rollcallClient(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	return configuredClient(t, rollcall.ClientConfig(endpoints...))
}

func configuredClient(t *testing.T, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	client, err := rollcall.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// put writes an endpoint by id.
func put(t *testing.T, client *clientv3.Client, service, id string, metadata any) int64 {
	t.Helper()
	value, err := rollcall.Encode(addrOf(id), metadata)
	if err != nil {
		t.Fatal(err)
	}
	return putValue(t, client, rollcall.Key(service, id), string(value))
}

// putValue writes a key, again where an election made the first try fail.
func putValue(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	ctx := testContext(t)
	for {
		resp, err := client.Put(ctx, key, value)
		if err == nil {
			return resp.Header.Revision
		}
		if ctx.Err() != nil || status.Code(err) == codes.InvalidArgument {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, client *clientv3.Client, key string) {
	t.Helper()
	if _, err := client.Delete(testContext(t), key); err != nil {
		t.Fatal(err)
	}
}

// compact drops every revision before the present one.
func compact(t *testing.T, client *clientv3.Client) {
	t.Helper()
	resp, err := client.Get(testContext(t), "x")
	if err == nil {
		_, err = client.Compact(testContext(t), resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// addrOf makes an address of an id: what it is does not matter, that it differs does.
func addrOf(id string) string { return "host-" + id + ":80" }

// follower records every snapshot of a service.
type follower struct {
	t   *testing.T
	sub *rollcall.Subscription

	mu     sync.Mutex
	seen   []*rollcall.Snapshot
	errs   []error
	change chan struct{}
}

// follow subscribes through a Directory of its own and records until the test ends. A
// revision that went backwards within one history fails the test.
func follow(t *testing.T, client *clientv3.Client, service string) *follower {
	t.Helper()
	d, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := d.Subscribe(service)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, sub: sub, change: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.record(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		d.Close()
	})
	return f
}

func (f *follower) record(ctx context.Context) {
	var last *rollcall.Snapshot
	for {
		snap, err := f.sub.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		if err != nil {
			f.errs = append(f.errs, err)
		} else {
			f.seen = append(f.seen, snap)
			if last != nil && snap.History() == last.History() && snap.Revision() < last.Revision() {
				f.t.Errorf("revision went back from %d to %d", last.Revision(), snap.Revision())
			}
			last = snap
		}
		close(f.change)
		f.change = make(chan struct{})
		f.mu.Unlock()
	}
}

// until waits until the snapshots recorded so far satisfy a condition.
func (f *follower) until(what string, met func(seen []*rollcall.Snapshot) bool) {
	f.t.Helper()
	ctx := testContext(f.t)
	for {
		f.mu.Lock()
		seen, change := slices.Clone(f.seen), f.change
		errs := len(f.errs)
		f.mu.Unlock()
		if met(seen) {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			state := "none"
			if len(seen) > 0 {
				state = fmt.Sprintf("%v, stale: %v", ids(seen[len(seen)-1]), seen[len(seen)-1].Stale())
			}
			f.t.Fatalf("no snapshot %s; %d seen, %d errors, the last: %s", what, len(seen), errs, state)
		}
	}
}

// holds waits until the snapshot is live and holds exactly these ids.
func (f *follower) holds(want ...string) *rollcall.Snapshot {
	f.t.Helper()
	slices.Sort(want)
	var snap *rollcall.Snapshot
	f.until(fmt.Sprintf("live with %v", want), func(seen []*rollcall.Snapshot) bool {
		if len(seen) == 0 {
			return false
		}
		snap = seen[len(seen)-1]
		return snap.Stale() == nil && slices.Equal(ids(snap), want)
	})
	return snap
}

// goesStale waits until the snapshot is marked stale and returns the mark.
func (f *follower) goesStale() *rollcall.Staleness {
	f.t.Helper()
	var mark *rollcall.Staleness
	f.until("stale", func(seen []*rollcall.Snapshot) bool {
		if len(seen) > 0 {
			mark = seen[len(seen)-1].Stale()
		}
		return mark != nil
	})
	return mark
}

// since returns the snapshots recorded after the first n.
func (f *follower) since(n int) []*rollcall.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen[n:])
}

func (f *follower) count() int { return len(f.since(0)) }

func ids(snap *rollcall.Snapshot) []string {
	all := []string{}
	for _, inst := range snap.Instances() {
		all = append(all, snap.ID(inst))
	}
	return all
}

// contents lists the distinct contents of snapshots in order, staleness left aside.
func contents(seen []*rollcall.Snapshot) []string {
	var all []string
	for _, snap := range seen {
		all = append(all, strings.Join(ids(snap), " "))
	}
	return slices.Compact(all)
}

// dial returns a channel through a builder of our own; opts come last.
func dial(t *testing.T, client *clientv3.Client, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	b, err := resolver.NewBuilder(client)
	if err != nil {
		t.Fatal(err)
	}
	all := []grpc.DialOption{grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials())}
	conn, err := grpc.NewClient(target, append(all, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// call makes one call that may take 20 s.
func call(t *testing.T, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return callNamed(ctx, conn, opts...)
}

// heals calls until a call succeeds.
func heals(t *testing.T, conn *grpc.ClientConn) string {
	t.Helper()
	began := time.Now()
	for {
		name, err := call(t, conn)
		if err == nil {
			return name
		}
		if time.Since(began) > waitMost {
			t.Fatalf("calls still fail: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func instanceOf(ep grpcresolver.Endpoint) *rollcall.Instance { return resolver.InstanceOf(ep) }
