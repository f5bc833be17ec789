// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// channel stands for a gRPC channel and writes down what it is told.
type channel struct {
	grpcresolver.ClientConn
	mu     sync.Mutex
	log    []string
	states []grpcresolver.State
	work   time.Duration // an update takes so long
}

func (c *channel) UpdateState(s grpcresolver.State) error {
	var addrs []string
	for _, ep := range s.Endpoints {
		for _, addr := range ep.Addresses {
			addrs = append(addrs, addr.Addr)
		}
	}
	slices.Sort(addrs)
	c.mu.Lock()
	c.log = append(c.log, "state ["+strings.Join(addrs, " ")+"]")
	c.states = append(c.states, s)
	c.mu.Unlock()
	time.Sleep(c.work)
	return nil
}

func (c *channel) ReportError(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, "error "+err.Error())
}

// ParseServiceConfig takes what has no "bad" in it.
func (c *channel) ParseServiceConfig(text string) *serviceconfig.ParseResult {
	if strings.Contains(text, "bad") {
		return &serviceconfig.ParseResult{Err: errors.New("bad config")}
	}
	return &serviceconfig.ParseResult{Config: parsed{text: text}}
}

type parsed struct {
	serviceconfig.Config
	text string
}

// told returns what was written down since the last call.
func (c *channel) told() string {
	time.Sleep(10 * time.Millisecond) // or what comes next is one burst with what was before
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.log
	c.log = nil
	return strings.Join(log, "; ")
}

func (c *channel) last() grpcresolver.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states[len(c.states)-1]
}

// want fails unless the channel was told exactly this.
func (c *channel) want(t *testing.T, want string) {
	t.Helper()
	if got := c.told(); got != want {
		t.Errorf("the channel was told:\n%s\nwant:\n%s", got, want)
	}
}

// bubble plays a test in virtual time with a store and a resolver of "svc".
func bubble(t *testing.T, prepare func(*fakeetcd.Store, *fakeetcd.Conn), test func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, r grpcresolver.Resolver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		prepare(store, conn)
		b, err := NewBuilder(conn.Client)
		if err != nil {
			t.Fatal(err)
		}
		c := &channel{}
		r, err := b.Build(target("etcd:///svc"), c, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		test(t, store, conn, c, r)
	})
}

func target(text string) grpcresolver.Target {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return grpcresolver.Target{URL: *u}
}

func TestStates(t *testing.T) {
	put := func(s *fakeetcd.Store, id, addr, metadata string) {
		s.Put("svc/"+id, fmt.Sprintf(`{"Addr":%q,"Metadata":%s}`, addr, metadata))
	}
	bubble(t, func(*fakeetcd.Store, *fakeetcd.Conn) {}, func(t *testing.T, s *fakeetcd.Store, _ *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
		const (
			empty = `error rollcall: service "svc" has no endpoints: `
			at    = `; no usable key under "svc/" at revision `

			invalid    = `; 1 invalid, the first: "svc/bad": value has no Addr`
			disallowed = `its only endpoint is disallowed: "svc/socket": invalid address "unix:/run/x": other machines cannot dial a local socket; it must be host:port`
		)
		c.want(t, empty+"it never had one that this client has seen"+at+"1")
		put(s, "bad", "", "null")
		c.want(t, empty+invalid[2:]+at+"2")
		put(s, "socket", "unix:/run/x", "null")
		c.want(t, empty+disallowed+invalid+at+"3")
		put(s, "a", "a:1", "null")
		c.want(t, "state [a:1]")
		put(s, "a", "a:1", "null")
		c.want(t, "") // written again with the same value
		put(s, "a", "a:1", `{"zone":"z"}`)
		c.want(t, "state [a:1]")
		put(s, "b", "b:1", "null")
		c.want(t, "state [a:1 b:1]")
		put(s, "b2", "b:1", "null")
		c.want(t, "state [a:1 b:1]") // another instance of the same address
		if got := instance(t, c, "b:1"); got != "svc/b2" {
			t.Errorf("b:1 stands for %s, want the newest", got)
		}
		put(s, "a", "a:1", `{"status":"draining"}`)
		c.want(t, "state [b:1]")
		put(s, "b", "b:1", `{"status":"draining"}`)
		c.want(t, "")
		put(s, "b2", "b:1", `{"status":"draining"}`)
		c.want(t, "state [a:1 b:1]") // all drain: better than none
		for _, id := range []string{"a", "b"} {
			s.Delete("svc/" + id)
			c.told()
		}
		s.Delete("svc/b2")
		c.want(t, "state []; "+empty+"its last endpoint left at revision 14; "+disallowed+invalid+at+"14")
		s.Delete("svc/bad")
		c.want(t, empty+"its last endpoint left at revision 14; "+disallowed+at+"15")
		put(s, "a", "a:1", "null")
		c.want(t, "state [a:1]")
		s.Delete("svc/a")
		c.want(t, "state []; "+empty+"its last endpoint was deleted at revision 17; "+disallowed+at+"17")
	})
}

// A channel through a proxy is given no endpoint without addresses: gRPC takes its hash key
// away there, and ring_hash panics. Go reads the environment once, so that this takes a
// process of its own.
func TestNobodyForProxies(t *testing.T) {
	const proxy = "http://127.0.0.1:1"
	if os.Getenv("HTTPS_PROXY") == proxy {
		if got := emptyState("svc"); got == nil || len(got) != 0 {
			t.Errorf("got %v, want an empty list", got)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNobodyForProxies$")
	cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// instance returns the key that the address of the last state stands for.
func instance(t *testing.T, c *channel, addr string) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ep := range c.states[len(c.states)-1].Endpoints {
		if ep.Addresses[0].Addr == addr {
			return InstanceFromEndpoint(ep).Key
		}
	}
	t.Fatalf("no %s in the last state", addr)
	return ""
}

func TestEtcdAwayKeepsEndpoints(t *testing.T) {
	bubble(t, func(s *fakeetcd.Store, _ *fakeetcd.Conn) { s.Put("svc/a", `{"Addr":"a:1"}`) },
		func(t *testing.T, s *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, r grpcresolver.Resolver) {
			c.want(t, "state [a:1]")
			conn.Cut()
			time.Sleep(time.Hour)
			c.want(t, "") // stale, and none of the channel's business
			s.Delete("svc/a")
			s.Put("svc/b", `{"Addr":"b:1"}`)
			conn.Mend()
			time.Sleep(10 * time.Second)
			if got := c.told(); !strings.HasSuffix(got, "state [b:1]") {
				t.Errorf("the channel was told %s", got)
			}
			r.ResolveNow(grpcresolver.ResolveNowOptions{})
			time.Sleep(time.Minute)
			c.want(t, "")
		})
}

func TestErrorsBeforeTheFirstState(t *testing.T) {
	fail := func(conn *fakeetcd.Conn, err error) {
		conn.Fail(fakeetcd.Get, err)
		conn.Fail(fakeetcd.Txn, err)
	}
	bubble(t, func(_ *fakeetcd.Store, conn *fakeetcd.Conn) { fail(conn, rpctypes.ErrPermissionDenied) },
		func(t *testing.T, s *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
			c.want(t, `error rollcall: resolve "svc": list "svc/": etcdserver: permission denied`)
			time.Sleep(time.Minute)
			c.want(t, "") // the same again is no news
			fail(conn, nil)
			s.Put("svc/a", `{"Addr":"a:1"}`)
			time.Sleep(time.Minute)
			c.want(t, "state [a:1]")
		})
}

// A balancer that is stuck in an update delays Close for a moment only, and the other
// channels not at all.
func TestStuckChannel(t *testing.T) {
	bubble(t, func(s *fakeetcd.Store, _ *fakeetcd.Conn) { s.Put("svc/a", `{"Addr":"a:1"}`) },
		func(t *testing.T, s *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
			b, _ := NewBuilder(conn.Client)
			stuck := &channel{work: time.Hour}
			r, err := b.Build(target("etcd:///svc"), stuck, grpcresolver.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			s.Put("svc/b", `{"Addr":"b:1"}`)
			c.want(t, "state [a:1]; state [a:1 b:1]")
			began := time.Now()
			r.Close()
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("Close took %v", took)
			}
			time.Sleep(2 * time.Hour)
			stuck.want(t, "state [a:1]")
		})
}

// What an operator must act on is logged once, however many channels see it; that etcd is
// away is the Directory's to log.
func TestLogsOnceForAllChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var log strings.Builder // written by one goroutine at a time, under a handler's lock
		noTime := func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
		b, err := NewBuilderWithOptions(d, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: noTime}))})
		if err != nil {
			t.Fatal(err)
		}
		conn.Cut()
		for i := range 10 {
			r, err := b.Build(target([]string{"etcd:///svc", "etcd:///svc?zone="}[i%2]), &channel{}, grpcresolver.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
		}
		time.Sleep(time.Minute)
		conn.Mend()
		store.Put("svc/a", `{"Addr":"unix:/x"}`)
		store.Put("_grpc_config/svc", "bad")
		time.Sleep(time.Minute)
		store.Put("_grpc_config/svc", `{"bad":true}`)
		time.Sleep(time.Minute)
		store.Delete("svc/a") // it was not mended
		time.Sleep(time.Minute)
		for range 2 {
			store.Put("svc/a", `{"Addr":"unix:/x"}`)
			time.Sleep(time.Minute)
			store.Put("svc/a", `{"Addr":"a:1"}`)
			store.Put("_grpc_config/svc", `{}`)
			time.Sleep(time.Minute)
			store.Put("_grpc_config/svc", "bad")
			time.Sleep(time.Minute)
		}
		want := []string{
			`level=WARN msg="address disallowed; ignoring the endpoint" key=svc/a cause=`,
			`level=WARN msg="address disallowed; ignoring the endpoint" key=svc/a cause=`,
			`level=WARN msg="service config is invalid; ignoring it" key=_grpc_config/svc revision=13 `,
			`level=WARN msg="service config is invalid; ignoring it" key=_grpc_config/svc revision=3 `,
			`level=WARN msg="service config is invalid; ignoring it" key=_grpc_config/svc revision=4 `,
			`level=WARN msg="service config is invalid; ignoring it" key=_grpc_config/svc revision=9 `,
		}
		synctest.Wait()
		lines := slices.Sorted(strings.Lines(log.String()))
		if !slices.EqualFunc(lines, want, strings.HasPrefix) {
			t.Errorf("logged:\n%s\nwant %q", strings.Join(lines, ""), want)
		}
	})
}

// A role that may read services and none of their configs is normal: it is logged once.
func TestLogsOnceForAllConfigs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if slices.ContainsFunc(call.Reads(), isConfig) {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return nil
		})
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var log strings.Builder // written by one goroutine at a time, under a handler's lock
		b, err := NewBuilderWithOptions(d, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			r, err := b.Build(target(fmt.Sprintf("etcd:///svc-%d", i)), &channel{}, grpcresolver.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "no right to read the service config") {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// Channels have orders of their own, and each keeps its own.
func TestOrder(t *testing.T) {
	bubble(t, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		for i := range 20 {
			s.Put(fmt.Sprintf("svc/%d", i), fmt.Sprintf(`{"Addr":"h%d:1"}`, i))
		}
	}, func(t *testing.T, s *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
		order := func(c *channel) (addrs []string) {
			time.Sleep(time.Second) // whatever is throttled has been shown
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, ep := range c.states[len(c.states)-1].Endpoints {
				addrs = append(addrs, ep.Addresses[0].Addr)
			}
			return addrs
		}
		b, _ := NewBuilder(conn.Client)
		other := &channel{}
		r, _ := b.Build(target("etcd:///svc"), other, grpcresolver.BuildOptions{})
		defer r.Close()
		first := order(c)
		if slices.Equal(first, order(other)) {
			t.Error("two channels have the same order of 20 endpoints")
		}
		s.Delete("svc/7")
		gone := func(a string) bool { return a == "h7:1" }
		if got, want := order(c), slices.DeleteFunc(slices.Clone(first[:shuffledPrefix]), gone); !slices.Equal(got[:len(want)], want) {
			t.Errorf("order %v became %v", first, got)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"etcd:///a": "a", "etcd:///a/": "a", "etcd:a": "a", "etcd:a/b": "a/b", "etcd://authority/a": "a", "etcd:/a": "a",
		"etcd:///a%20b": "a b", "etcd:a%20b": "a b", "etcd:////a": "/a", "etcd:///a%2Fb": "a/b",
		"etcd:": "", "etcd:///": "", "etcd:////": "", "etcd://authority": "", "etcd:///a?zone=x": "a", "etcd:///a?": "a", "etcd:///a?colour=red": "", "etcd:///a?weight=0": "", "etcd:///a#b": "", "etcd:%zz": "",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := ParseTarget(*u)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "invalid target") {
			t.Errorf("%s: the error names no target: %v", text, err)
		}
	}
}

func TestBuilder(t *testing.T) {
	if _, err := NewBuilder(nil); err == nil {
		t.Error("a builder without a client")
	}
	if _, err := NewBuilderWithOptions(nil, Options{}); err == nil || !strings.Contains(err.Error(), "no Directory") {
		t.Errorf("a builder without a Directory: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		b, err := NewBuilder(conn.Client)
		if err != nil || b.Scheme() != "etcd" {
			t.Fatalf("scheme %q, %v", b.Scheme(), err)
		}
		if _, err := b.Build(target("etcd:///"), &channel{}, grpcresolver.BuildOptions{}); status.Code(err) != codes.Unavailable {
			t.Errorf("built a target without a name: %v", err)
		}
		conn.Close()
		synctest.Wait()
		if _, err := b.Build(target("etcd:///svc"), &channel{}, grpcresolver.BuildOptions{}); status.Code(err) != codes.Unavailable {
			t.Errorf("built on a closed client: %v", err)
		}
	})
	if InstanceFromEndpoint(grpcresolver.Endpoint{}) != nil {
		t.Error("an endpoint of nobody has an instance")
	}
}

// gRPC's trace of a state tells its instances by their keys.
func TestTrace(t *testing.T) {
	ep := newEndpoint(&rollcall.Instance{Key: "svc/a", Addr: "a:1"}, nil, 1, "a")
	if got, want := ep.Attributes.String(), `"instance": "svc/a"`; !strings.Contains(got, want) {
		t.Errorf("attributes are written as %s, want %s in it", got, want)
	}
}

// A channel is told that instances are retained which it may not call.
func TestRetainedUnusable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: time.Minute},
			Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		b, err := NewBuilderWithOptions(d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"a", "b", "c"} {
			store.Put("svc/"+id, `{"Addr":"unix:/`+id+`"}`)
		}
		c := &channel{}
		r, err := b.Build(target("etcd:///svc"), c, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, want := c.told(), `: all 3 are disallowed, the first: "svc/a": invalid address "unix:/a"`; !strings.Contains(got, want) {
			t.Errorf("told %s, want %s", got, want)
		}
		for _, id := range []string{"a", "b", "c"} {
			store.Delete("svc/" + id)
		}
		time.Sleep(time.Second)
		if got, want := c.told(), ": 3 retained, none usable; no usable key"; !strings.Contains(got, want) {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

// Retained instances are called, unless another instance has their address by now.
func TestRetainedStayCallable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		b, err := NewBuilderWithOptions(d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"a", "b", "c"} {
			store.Put("svc/"+id, `{"Addr":"`+id+`:1"}`)
		}
		c := &channel{}
		r, err := b.Build(grpcresolver.Target{URL: url.URL{Scheme: Scheme, Path: "/svc"}}, c, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c.want(t, "state [a:1 b:1 c:1]")
		for _, id := range []string{"a", "b", "c"} {
			store.Delete("svc/" + id)
		}
		time.Sleep(time.Second)
		if log := c.told(); !strings.HasSuffix(log, "state [a:1 b:1 c:1]") && log != "" {
			t.Errorf("told %s, want all three at the end", log)
		}
		store.Put("svc/d", `{"Addr":"d:1"}`)
		store.Put("svc/e", `{"Addr":"a:1"}`) // a's successor
		time.Sleep(time.Second)
		c.told()
		var keys []string
		for _, ep := range c.last().Endpoints {
			keys = append(keys, InstanceFromEndpoint(ep).Key)
		}
		slices.Sort(keys)
		if want := []string{"svc/b", "svc/c", "svc/d", "svc/e"}; !slices.Equal(keys, want) {
			t.Errorf("selected %v, want %v", keys, want)
		}
		time.Sleep(time.Minute)
		if log := c.told(); !strings.HasSuffix(log, "state [a:1 d:1]") {
			t.Errorf("told %s, want what etcd holds", log)
		}
	})
}

// A builder logs to its Directory's logger, whatever that is at the time.
func TestLoggerIsTheDirectorys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		var log bytes.Buffer
		b, err := NewBuilder(conn.Client)
		if err != nil {
			t.Fatal(err)
		}
		d, err := rollcall.SharedDirectory(conn.Client)
		if err != nil {
			t.Fatal(err)
		}
		d.SetLogger(slog.New(slog.NewTextHandler(&log, nil)))
		store.Put("svc/a", `{"Addr":"unix:/x"}`)
		r, err := b.Build(target("etcd:///svc"), &channel{}, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		conn.Cut()
		time.Sleep(30 * time.Second)
		r.Close()
		synctest.Wait()
		for _, want := range []string{"etcd unreachable", "address disallowed"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s is not in the log: %q", want, log.String())
			}
		}
	})
}
