// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
)

const roundRobin = `{"loadBalancingPolicy":"round_robin"}`

// env is what a check has: a package, an etcd, a target of its own, and a context that
// ends with the test's patience. A check that fails while it is graded panics with
// checkFailed, since the test goes on and writes the verdict down.
type env struct {
	t      *testing.T
	ctx    context.Context
	naming naming
	etcd   *etcdtest.Cluster
	client *clientv3.Client
	target string
	graded bool

	mu      sync.Mutex
	clients []*clientv3.Client // of clientOf
}

type checkFailed string

func (e *env) failf(format string, args ...any) {
	e.t.Helper()
	if !e.graded {
		e.t.Fatalf(format, args...)
	}
	panic(checkFailed(fmt.Sprintf(format, args...)))
}

// ok fails the check with an error.
func (e *env) ok(err error) {
	if err != nil {
		e.failf("%v", err)
	}
}

// same fails the check where got is not want.
func (e *env) same(what string, got, want any) {
	if diff := cmp.Diff(want, got); diff != "" {
		e.failf("%s: got %v, want %v", what, got, want)
	}
}

// eventually tries until there is no error or the patience ends.
func (e *env) eventually(try func() error) {
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-e.ctx.Done():
			e.failf("still: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *env) key(id string) string { return e.target + "/" + id }

func (e *env) manager() endpoints.Manager { return e.managerOf(e.client, e.target) }

func (e *env) managerOf(client *clientv3.Client, target string) endpoints.Manager {
	m, err := e.naming.newManager(client, target)
	e.ok(err)
	return m
}

// put writes a key as it is, past the packages.
func (e *env) put(key, value string, opts ...clientv3.OpOption) {
	_, err := e.client.Put(e.ctx, key, value, opts...)
	e.ok(err)
}

// stored reads a key, past the packages; nil where there is none.
func (e *env) stored(key string) *mvccpb.KeyValue {
	resp, err := e.client.Get(e.ctx, key)
	e.ok(err)
	if len(resp.Kvs) == 0 {
		return nil
	}
	return resp.Kvs[0]
}

func (e *env) add(m endpoints.Manager, key, addr string, opts ...clientv3.OpOption) {
	e.ok(m.AddEndpoint(e.ctx, key, endpoints.Endpoint{Addr: addr}, opts...))
}

// listed returns the addresses that a manager lists, by key.
func (e *env) listed(m endpoints.Manager) map[string]string {
	all, err := m.List(e.ctx)
	e.ok(err)
	addrs := make(map[string]string)
	for key, ep := range all {
		addrs[key] = ep.Addr
	}
	return addrs
}

// lists waits until a manager lists exactly these addresses.
func (e *env) lists(m endpoints.Manager, want map[string]string) {
	e.eventually(func() error {
		if got := e.listed(m); !cmp.Equal(got, want) {
			return fmt.Errorf("listed %v, want %v", got, want)
		}
		return nil
	})
}

// clientOf returns a client with a configuration of its own.
func (e *env) clientOf(mutate func(*clientv3.Config)) *clientv3.Client {
	client := e.etcd.Client(e.t, mutate)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients = append(e.clients, client)
	return client
}

// letGo closes the clients: whatever waits for etcd without a context ends.
func (e *env) letGo() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, client := range append(e.clients, e.client) {
		client.Close()
	}
}

// watcher reads a WatchChannel.
type watcher struct {
	e      *env
	ch     endpoints.WatchChannel
	cancel context.CancelFunc
	set    map[string]string // addresses by key, as the messages add up
}

func (e *env) watch(m endpoints.Manager) *watcher {
	ctx, cancel := context.WithCancel(e.ctx)
	ch, err := m.NewWatchChannel(ctx)
	if err != nil {
		cancel()
		e.failf("watch: %v", err)
	}
	w := &watcher{e: e, ch: ch, cancel: cancel, set: make(map[string]string)}
	e.t.Cleanup(func() {
		cancel()
		for range ch {
		}
	})
	return w
}

// next returns the next message.
func (w *watcher) next() []*endpoints.Update {
	select {
	case updates, ok := <-w.ch:
		if !ok {
			w.e.failf("the watch channel was closed")
		}
		for _, u := range updates {
			if u.Op == endpoints.Delete {
				delete(w.set, u.Key)
			} else {
				w.set[u.Key] = u.Endpoint.Addr
			}
		}
		return updates
	case <-w.e.ctx.Done():
		w.e.failf("no further message; the watch stands at %v", w.set)
		return nil
	}
}

// becomes reads messages until they add up to want.
func (w *watcher) becomes(want map[string]string) {
	for !cmp.Equal(w.set, want) {
		w.next()
	}
}

// namedServer is a gRPC server that answers with its name.
type namedServer struct {
	testpb.UnimplementedTestServiceServer
	name string
	addr string
}

func (s *namedServer) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{ServerId: s.name}, nil
}

func startNamedServer(tb testing.TB, name string) *namedServer {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &namedServer{name: name, addr: ln.Addr().String()}
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ln) })
	tb.Cleanup(func() {
		server.Stop()
		wg.Wait()
	})
	return s
}

// callNamed makes one call and returns the name of the server that answered.
func callNamed(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	resp, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{}, opts...)
	return resp.GetServerId(), err
}

func (e *env) builder() grpcresolver.Builder { return e.builderOf(e.client) }

func (e *env) builderOf(client *clientv3.Client) grpcresolver.Builder {
	b, err := e.naming.newBuilder(client)
	e.ok(err)
	return b
}

// dial returns a channel to a target, with round_robin.
func (e *env) dial(target string, opts ...grpc.DialOption) *grpc.ClientConn {
	return e.dialBy(e.builder(), target, opts...)
}

func (e *env) dialBy(b grpcresolver.Builder, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	all := []grpc.DialOption{grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(roundRobin)}
	conn, err := grpc.NewClient(target, append(all, opts...)...)
	e.ok(err)
	e.t.Cleanup(func() { conn.Close() })
	return conn
}

// call makes one call, with a bound of its own below the patience.
func (e *env) call(conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, 5*time.Second)
	defer cancel()
	return callNamed(ctx, conn, opts...)
}

// reaches calls until exactly the named servers answer. A new channel calls whoever is
// connected first: that others are never called must be seen from what it was told.
func (e *env) reaches(conn *grpc.ClientConn, names ...string) {
	slices.Sort(names)
	e.eventually(func() error {
		seen := make(map[string]bool)
		for range 4 * len(names) {
			name, err := e.call(conn)
			if err != nil {
				return err
			}
			seen[name] = true
		}
		var got []string
		for name := range seen {
			got = append(got, name)
		}
		slices.Sort(got)
		if !slices.Equal(got, names) {
			return fmt.Errorf("calls reach %v, want %v", got, names)
		}
		return nil
	})
}

// channelLog stands for a channel and records what its resolver tells it.
type channelLog struct {
	grpcresolver.ClientConn
	mu     sync.Mutex
	states []grpcresolver.State
	errs   []error
}

func (c *channelLog) UpdateState(s grpcresolver.State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, s)
	return nil
}

func (c *channelLog) ReportError(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

func (c *channelLog) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

func (c *channelLog) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.states)
}

// last returns the endpoints that the channel was told last.
func (c *channelLog) last() []grpcresolver.Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.states) == 0 {
		return nil
	}
	return c.states[len(c.states)-1].Endpoints
}

// addrs returns the addresses that the channel was told last, sorted.
func (c *channelLog) addrs() []string {
	var all []string
	for _, ep := range c.last() {
		for _, a := range ep.Addresses {
			all = append(all, a.Addr)
		}
	}
	slices.Sort(all)
	return all
}

// resolve builds a resolver of the check's target.
func (e *env) resolve() *channelLog { return e.resolveBy(e.builder(), e.target) }

func (e *env) resolveBy(b grpcresolver.Builder, service string) *channelLog {
	c := &channelLog{}
	u, err := url.Parse("etcd:///" + service)
	e.ok(err)
	r, err := b.Build(grpcresolver.Target{URL: *u}, c, grpcresolver.BuildOptions{})
	e.ok(err)
	e.t.Cleanup(r.Close)
	return c
}

// shows waits until the channel was told exactly these addresses.
func (e *env) shows(c *channelLog, want ...string) {
	slices.Sort(want)
	e.eventually(func() error {
		if got := c.addrs(); !slices.Equal(got, want) {
			return fmt.Errorf("the channel was told %q, want %q", got, want)
		}
		return nil
	})
}
