// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"maps"
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
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

const roundRobin = `{"loadBalancingPolicy":"round_robin"}`

// Env is the environment of a check: a package, an etcd, a target, and a context that bounds the
// check.
type Env struct {
	T      *testing.T
	Ctx    context.Context
	Naming Naming
	Etcd   *etcdtest.Cluster
	Client *clientv3.Client // straight to the members
	Target string
	Reach  []string // host:port that clients of the fault dial: the members, or a proxy

	graded  bool
	mu      sync.Mutex
	clients []*clientv3.Client // of clientOf
	targets map[endpoints.Manager]string
}

// NewEnv returns the environment of a check of a package, on an etcd that may be shared.
func NewEnv(t *testing.T, n Naming, etcd *etcdtest.Cluster, target string) *Env {
	return &Env{T: t, Ctx: Context(t), Naming: n, Etcd: etcd, Client: etcd.Client(t), Target: target, Reach: etcd.Endpoints()}
}

// failed is the panic of a graded check: the test goes on and records the result.
type failed string

// Failf fails the check.
func (e *Env) Failf(format string, args ...any) {
	e.T.Helper()
	if !e.graded {
		e.T.Fatalf(format, args...)
	}
	panic(failed(fmt.Sprintf(format, args...)))
}

// Grade runs a check that may fail, for at most patience, and returns how it failed.
func (e *Env) Grade(patience time.Duration, check func(e *Env)) (failure string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	e.T.Cleanup(cancel)
	e.Ctx, e.graded = ctx, true
	watchdog := time.AfterFunc(patience+time.Second, e.letGo)
	e.T.Cleanup(func() { watchdog.Stop() })
	began := time.Now()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failed:
			failure = string(p)
		default:
			failure = fmt.Sprint("panic: ", p)
		}
		// A call that fails because letGo has closed its client had waited for etcd until then.
		if took := time.Since(began); took > patience+time.Second {
			failure = fmt.Sprintf("blocked for %v, past its context", took.Round(time.Second))
		}
	}()
	check(e)
	return ""
}

// OK fails the check if err is not nil.
func (e *Env) OK(err error) {
	if err != nil {
		e.Failf("%v", err)
	}
}

// Same fails the check if got is not want.
func (e *Env) Same(what string, got, want any) {
	if diff := cmp.Diff(want, got); diff != "" {
		e.Failf("%s: got %v, want %v", what, got, want)
	}
}

// Eventually calls f until it returns no error; it fails the check when the context ends.
func (e *Env) Eventually(try func() error) {
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-e.Ctx.Done():
			e.Failf("still: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *Env) Key(id string) string { return e.Target + "/" + id }

func (e *Env) Manager() endpoints.Manager { return e.ManagerOf(e.Client, e.Target) }

func (e *Env) ManagerOf(client *clientv3.Client, target string) endpoints.Manager {
	m, err := e.Naming.NewManager(client, target)
	e.OK(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.targets == nil {
		e.targets = make(map[endpoints.Manager]string)
	}
	e.targets[m] = target
	return m
}

// Put writes a key directly, without the packages.
func (e *Env) Put(key, value string, opts ...clientv3.OpOption) {
	_, err := e.Client.Put(e.Ctx, key, value, opts...)
	e.OK(err)
}

// Stored reads a key directly; nil if it does not exist.
func (e *Env) Stored(key string) *mvccpb.KeyValue {
	resp, err := e.Client.Get(e.Ctx, key)
	e.OK(err)
	if len(resp.Kvs) == 0 {
		return nil
	}
	return resp.Kvs[0]
}

func (e *Env) Add(m endpoints.Manager, key, addr string, opts ...clientv3.OpOption) {
	e.OK(m.AddEndpoint(e.Ctx, key, endpoints.Endpoint{Addr: addr}, opts...))
}

// Listed returns the addresses that a manager lists, by key.
func (e *Env) Listed(m endpoints.Manager) map[string]string {
	all, err := m.List(e.Ctx)
	e.OK(err)
	addrs := make(map[string]string)
	for key, ep := range all {
		addrs[key] = ep.Addr
	}
	return addrs
}

// Lists waits until a manager lists exactly these addresses.
func (e *Env) Lists(m endpoints.Manager, want map[string]string) {
	e.Eventually(func() error {
		if got := e.Listed(m); !cmp.Equal(got, want) {
			return fmt.Errorf("listed %v, want %v", got, want)
		}
		return nil
	})
}

// ClientOf returns a client with the given configuration.
func (e *Env) clientOf(mutate func(*clientv3.Config)) *clientv3.Client {
	client := e.Etcd.Client(e.T, mutate)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients = append(e.clients, client)
	return client
}

// letGo closes the clients, which ends calls that wait for etcd without a context.
func (e *Env) letGo() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, client := range append(e.clients, e.Client) {
		client.Close()
	}
}

// Watcher reads a WatchChannel.
type Watcher struct {
	e      *Env
	Ch     endpoints.WatchChannel
	cancel context.CancelFunc
	Set    map[string]string // addresses by key, after all messages so far
	sets   []map[string]string
}

func (e *Env) Watch(m endpoints.Manager) *Watcher {
	ctx, cancel := context.WithCancel(e.Ctx)
	ch, err := m.NewWatchChannel(ctx)
	if err != nil {
		cancel()
		e.Failf("watch: %v", err)
	}
	w := &Watcher{e: e, Ch: ch, cancel: cancel, Set: make(map[string]string)}
	e.mu.Lock()
	target := e.targets[m]
	e.mu.Unlock()
	if tr := truthOf(e.T); tr != nil && target == e.Target && e.Naming.Name == Rollcall.Name {
		tr.expect(func() error { return tr.checkSets(target, w.sets) })
	}
	e.T.Cleanup(func() {
		cancel()
		for range ch {
		}
	})
	return w
}

// Next returns the next message.
func (w *Watcher) Next() []*endpoints.Update {
	select {
	case updates, ok := <-w.Ch:
		if !ok {
			w.e.Failf("the watch channel was closed")
		}
		for _, u := range updates {
			if u.Op == endpoints.Delete {
				delete(w.Set, u.Key)
			} else {
				w.Set[u.Key] = u.Endpoint.Addr
			}
		}
		w.sets = append(w.sets, maps.Clone(w.Set))
		return updates
	case <-w.e.Ctx.Done():
		w.e.Failf("no further message; the watch stands at %v", w.Set)
		return nil
	}
}

// Becomes reads messages until the set is want.
func (w *Watcher) Becomes(want map[string]string) {
	for !cmp.Equal(w.Set, want) {
		w.Next()
	}
}

func (e *Env) Builder() grpcresolver.Builder { return e.BuilderOf(e.Client) }

func (e *Env) BuilderOf(client *clientv3.Client) grpcresolver.Builder {
	b, err := e.Naming.NewBuilder(client)
	e.OK(err)
	return b
}

// Dial returns a channel to a target, with round_robin.
func (e *Env) Dial(target string, opts ...grpc.DialOption) *grpc.ClientConn {
	return e.DialBy(e.Builder(), target, opts...)
}

func (e *Env) DialBy(b grpcresolver.Builder, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	all := []grpc.DialOption{grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(roundRobin)}
	conn, err := grpc.NewClient(target, append(all, opts...)...)
	e.OK(err)
	e.T.Cleanup(func() { conn.Close() })
	return conn
}

// Call makes one call, bounded to less than the check.
func (e *Env) Call(conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(e.Ctx, 5*time.Second)
	defer cancel()
	return CallNamed(ctx, conn, opts...)
}

// Reaches calls until exactly the named servers answer. A new channel calls the servers that are
// connected first: that a server is never called must be checked by Shows.
func (e *Env) Reaches(conn *grpc.ClientConn, names ...string) {
	slices.Sort(names)
	e.Eventually(func() error {
		seen := make(map[string]bool)
		for range 4 * len(names) {
			name, err := e.Call(conn)
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

// Resolve builds a resolver of the check's target.
func (e *Env) Resolve() *Channel { return e.ResolveBy(e.Builder(), e.Target) }

func (e *Env) ResolveBy(b grpcresolver.Builder, service string) *Channel {
	c := &Channel{}
	u, err := url.Parse("etcd:///" + service)
	e.OK(err)
	r, err := b.Build(grpcresolver.Target{URL: *u}, c, grpcresolver.BuildOptions{})
	e.OK(err)
	e.T.Cleanup(r.Close)
	return c
}

// Shows waits until the channel has exactly these addresses.
func (e *Env) Shows(c *Channel, want ...string) {
	slices.Sort(want)
	e.Eventually(func() error {
		if got := c.Addrs(); !slices.Equal(got, want) {
			return fmt.Errorf("the channel has %q, want %q", got, want)
		}
		return nil
	})
}

// Serve starts servers and adds their endpoints to the check's target.
func (e *Env) Serve(names ...string) {
	for _, name := range names {
		e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key(name), endpoints.Endpoint{Addr: StartServer(e.T, name).Addr}))
	}
}

// Ours reports whether the check runs on Rollcall, where it may check more.
func (e *Env) Ours() bool { return e.Naming.Name == Rollcall.Name }

// ClientWith returns a client with Rollcall's defaults, for either package.
func (e *Env) ClientWith(mutate ...func(*clientv3.Config)) *clientv3.Client {
	return e.clientOf(func(cfg *clientv3.Config) {
		*cfg = rollcall.ClientConfig(e.Reach...)
		for _, m := range mutate {
			m(cfg)
		}
	})
}

// At makes a client dial these endpoints.
func At(endpoints ...string) func(*clientv3.Config) {
	return func(cfg *clientv3.Config) { cfg.Endpoints = endpoints }
}

// Linked returns a client behind its own link.
func (e *Env) Linked() (*etcdtest.Link, *clientv3.Client) {
	link := etcdtest.NewLink(e.T, e.Reach[0])
	return link, e.ClientAt(link.Addr())
}

// ShortLease returns the option of a lease that is not renewed.
func (e *Env) ShortLease() clientv3.OpOption {
	lease, err := e.Client.Grant(e.Ctx, 2)
	e.OK(err)
	return clientv3.WithLease(lease.ID)
}

func (e *Env) ClientAt(endpoints ...string) *clientv3.Client {
	return e.clientOf(func(cfg *clientv3.Config) { cfg.Endpoints = endpoints })
}

// Compact compacts all revisions before the present one.
func (e *Env) Compact() {
	resp, err := e.Client.Get(e.Ctx, "revision")
	e.OK(err)
	_, err = e.Client.Compact(e.Ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
	e.OK(err)
}
