// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package registering_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// lossy loses the answers to the next calls of some methods: they have happened, and the
// client runs into its deadline.
type lossy struct {
	mu   sync.Mutex
	left map[string]int // by the end of the method's name
}

func (l *lossy) lose(method string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left[method] = n
}

func (l *lossy) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	name := method[strings.LastIndexByte(method, '/')+1:]
	l.mu.Lock()
	lost := l.left[name] > 0
	l.left[name]--
	l.mu.Unlock()
	if lost && err == nil {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

// A put or a grant that timed out may have happened: neither makes a ghost.
func TestL7LostAnswers(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	answers := &lossy{left: make(map[string]int)}
	cfg := rollcall.ClientConfig(etcd.Endpoints()...)
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainUnaryInterceptor(answers.unary))
	r := newRegistrar(t, lab.ClientOf(t, cfg))
	answers.lose("LeaseGrant", 1)
	answers.lose("Txn", 1)
	began := time.Now()
	g := enrol(t, r, "a", nil)
	t.Logf("registered after %v, with the answers to a grant and to a put lost", time.Since(began))
	becomes(t, direct, g.Key(), "ours", holds(g, stored(t, "a", nil)))

	// The update whose answer is lost is written once.
	log := logKey(t, direct, g.Key())
	answers.lose("Txn", 1)
	if err := g.Update(lab.Context(t), map[string]int{"weight": 2}); err != nil {
		t.Fatal(err)
	}
	becomes(t, direct, g.Key(), "updated", holds(g, stored(t, "a", map[string]int{"weight": 2})))
	if n := len(log.seen()); n != 1 {
		t.Errorf("%d events of one update", n)
	}
	answers.lose("Txn", 1)
	if err := g.Shutdown(lab.Context(t)); err != nil {
		t.Fatal(err)
	}
	becomes(t, direct, g.Key(), "gone", gone)

	// The lease whose grant was not heard of holds no key and dies with its TTL.
	deadline := time.Now().Add(lab.WaitMost)
	for {
		leases, err := direct.Leases(lab.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(leases.Leases) <= 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d leases, want at most the registrar's", len(leases.Leases))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// leaseSpy notes keepalives that require a leader.
type leaseSpy struct {
	clientv3.Lease
	all, requiring atomic.Int64
}

func (s *leaseSpy) KeepAlive(ctx context.Context, id clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	s.all.Add(1)
	if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get(rpctypes.MetadataRequireLeaderKey)) > 0 {
		s.requiring.Add(1)
	}
	return s.Lease.KeepAlive(ctx, id)
}

// Once the leader is lost, etcd's client may go on renewing, for nobody, a lease whose
// keepalive required one. Ours requires none, and outlives an election.
func TestL9KeepAliveRequiresNoLeader(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{Members: 3})
	client := lab.Client(t, etcd.Endpoints()...)
	spy := &leaseSpy{Lease: client.Lease}
	client.Lease = spy
	g := enrol(t, newRegistrar(t, client), "a", nil)
	leader := etcd.Leader()
	leader.Kill()
	time.Sleep(2 * leaseTTL)
	leader.Start()
	etcd.WaitReady()
	if err := g.Wait(lab.Context(t)); err != nil {
		t.Error(err)
	}
	if spy.all.Load() == 0 || spy.requiring.Load() > 0 {
		t.Errorf("%d keepalives, of which %d require a leader", spy.all.Load(), spy.requiring.Load())
	}
	leases, err := etcd.Client(t).Leases(lab.Context(t))
	if state, _ := g.State(); err != nil || len(leases.Leases) != 1 || leases.Leases[0].ID != state.Lease {
		t.Errorf("leases %+v, %v, want the registrar's %x alone", leases, err, int64(state.Lease))
	}
}

// What exceeds a server's limits is a typed error that names limit and size, and nothing
// of it is written.
func TestL11OverTheLimits(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	m, err := endpoints.NewManager(client, "svc")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]*endpoints.UpdateWithOpts, 129)
	for i := range many {
		many[i] = endpoints.NewAddUpdateOpts(fmt.Sprintf("svc/%d", i), endpoints.Endpoint{Addr: "a:1"})
	}
	large := make([]*endpoints.UpdateWithOpts, 4)
	for i := range large {
		large[i] = endpoints.NewAddUpdateOpts(fmt.Sprintf("svc/%d", i), endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("x", 500_000)})
	}
	for _, row := range []struct {
		name    string
		updates []*endpoints.UpdateWithOpts
		part    string
	}{{"operations", many, "129"}, {"bytes", large, "2000"}} {
		err := m.Update(lab.Context(t), row.updates)
		var limit *endpoints.LimitError
		if !errors.As(err, &limit) || status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), row.part) {
			t.Errorf("%s: got %v, want a LimitError with %s", row.name, err, row.part)
			continue
		}
		t.Log(err)
		lab.Note(t, "refused: %d operations, %d bytes", limit.Operations, limit.Bytes)
	}
	if all, err := m.List(lab.Context(t)); err != nil || len(all) > 0 {
		t.Errorf("%d were written, %v", len(all), err)
	}
	r := newRegistrar(t, client)
	_, err = r.Register("svc", rollcall.Endpoint{Addr: "10.0.0.1:80", Metadata: strings.Repeat("x", rollcall.MaxMetadata)})
	if !errors.As(err, new(*rollcall.InputError)) || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("a registration of 1 MiB: got %v, want an InputError that names the limit", err)
	}

	// The server's limits are its own to set: here they are smaller than usual.
	small := lab.Client(t, etcdtest.New(t, etcdtest.Options{Flags: []string{"--max-request-bytes=10000"}}).Endpoints()...)
	g, err := newRegistrar(t, small).Register("svc", rollcall.Endpoint{ID: "large", Addr: "10.0.0.1:80", Metadata: strings.Repeat("x", 100_000)})
	if err != nil {
		t.Fatal(err)
	}
	reaches(t, g, rollcall.Registering, rpctypes.ErrRequestTooLarge)
	if err := g.Update(lab.Context(t), "small"); err != nil {
		t.Errorf("with less metadata: %v", err)
	}
	becomes(t, small, g.Key(), "registered", func(kv *mvccpb.KeyValue) bool {
		return kv != nil && clientv3.LeaseID(kv.Lease) != 0 && strings.Contains(string(kv.Value), "small")
	})
}
