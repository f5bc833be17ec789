// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
	"github.com/rollcall-grpc/rollcall/serving"
)

// waitMost bounds every wait; it is no promise.
const waitMost = 60 * time.Second

// house is an etcd, what a watcher saw of "svc" in it, and a gRPC server to be run.
type house struct {
	*testing.T
	etcd      *etcdtest.Cluster
	client    *clientv3.Client
	registrar *rollcall.Registrar
	srv       *grpc.Server
	lis       net.Listener
	slow      *slowService

	mu   sync.Mutex
	seen []string // "", "serving", "draining": the statuses of svc's only endpoint
	news chan struct{}
}

func directoryOf(t *testing.T, client *clientv3.Client) *rollcall.Directory {
	t.Helper()
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		t.Fatal(err)
	}
	return directory
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{T: t, etcd: etcdtest.New(t, etcdtest.Options{}), news: make(chan struct{})}
	h.client = h.newClient()
	var err error
	h.registrar, err = rollcall.NewRegistrar(directoryOf(t, h.client), rollcall.RegistrarOptions{TTL: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.registrar.Close) // etcd may be gone by now
	h.newServer()
	h.watch()
	return h
}

// newServer makes the server anew.
func (h *house) newServer() {
	h.Helper()
	h.srv, h.slow = grpc.NewServer(), &slowService{started: make(chan struct{}), finish: make(chan struct{})}
	h.srv.RegisterService(&slowDesc, h.slow)
	var err error
	if h.lis, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(h.srv.Stop)
}

func (h *house) newClient() *clientv3.Client {
	client, err := rollcall.NewClient(rollcall.ClientConfig(h.etcd.Endpoints()...))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { client.Close() })
	return client
}

// watch records, by a client of its own, every event of the service.
func (h *house) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	client := h.newClient()
	events := client.Watch(ctx, "svc/", clientv3.WithPrefix(), clientv3.WithRev(1))
	wg.Go(func() {
		for resp := range events {
			for _, ev := range resp.Events {
				status := ""
				if inst, err := rollcall.Decode(ev.Kv); err == nil {
					status = "serving"
					if inst.Draining() {
						status = "draining"
					}
				}
				h.mu.Lock()
				h.seen = append(h.seen, status)
				close(h.news)
				h.news = make(chan struct{})
				h.mu.Unlock()
			}
		}
	})
	h.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// saw waits until the watcher has seen exactly this.
func (h *house) saw(want ...string) {
	h.Helper()
	timeout := time.After(waitMost)
	for {
		h.mu.Lock()
		seen, news := slices.Clone(h.seen), h.news
		h.mu.Unlock()
		if slices.Equal(seen, want) {
			return
		}
		select {
		case <-news:
		case <-timeout:
			h.Fatalf("seen %q, want %q", seen, want)
		}
	}
}

func (h *house) options() serving.Options {
	return serving.Options{Registrar: h.registrar, Service: "svc", DrainDelay: 100 * time.Millisecond, StopTimeout: waitMost}
}

// run runs the server and returns what ends it and what waits for its end.
func (h *house) run(opts serving.Options) (cancel func(), ended func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	srv, lis := h.srv, h.lis
	go func() { done <- serving.Run(ctx, srv, lis, opts) }()
	h.Cleanup(func() {
		cancel()
		srv.Stop()
	})
	return cancel, func() error {
		h.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(waitMost):
			h.Fatal("Run does not return")
			return nil
		}
	}
}

// dial returns a channel to the server itself.
func (h *house) dial() *grpc.ClientConn {
	conn, err := grpc.NewClient(h.lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { conn.Close() })
	return conn
}

// slowService has one method, whose first call lasts until finish is closed.
type slowService struct {
	once            sync.Once
	started, finish chan struct{}
}

func (s *slowService) call(ctx context.Context) (any, error) {
	s.once.Do(func() { close(s.started) })
	select {
	case <-s.finish:
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var slowDesc = grpc.ServiceDesc{
	ServiceName: "test.Slow",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(srv any, ctx context.Context,
		dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := dec(new(healthpb.HealthCheckRequest)); err != nil {
			return nil, err
		}
		return srv.(*slowService).call(ctx)
	}}},
}

func callSlow(conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), waitMost)
	defer cancel()
	return conn.Invoke(ctx, "/test.Slow/Call", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}, grpc.WaitForReady(true))
}

// The order of an end: marked, deregistered, running calls finished. No call fails.
func TestEndLetsRunningCallsFinish(t *testing.T) {
	h := newHouse(t)
	cancel, ended := h.run(h.options())
	h.saw("serving")
	called := make(chan error, 1)
	conn := h.dial()
	go func() { called <- callSlow(conn) }()
	<-h.slow.started
	cancel()
	h.saw("serving", "draining", "")
	select {
	case err := <-called:
		t.Fatalf("the running call was cut: %v", err)
	default:
	}
	close(h.slow.finish)
	if err := <-called; err != nil {
		t.Errorf("the running call: %v", err)
	}
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// Calls that do not finish are cut short.
func TestStopTimeout(t *testing.T) {
	h := newHouse(t)
	opts := h.options()
	opts.StopTimeout, opts.DrainDelay = 1, 1
	cancel, ended := h.run(opts)
	called := make(chan error, 1)
	conn := h.dial()
	go func() { called <- callSlow(conn) }()
	<-h.slow.started
	h.saw("serving")
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := <-called; err == nil {
		t.Error("the call was not cut")
	}
	h.saw("serving", "draining", "")
}

func TestHealthDecides(t *testing.T) {
	h := newHouse(t)
	status := health.NewServer()
	status.SetServingStatus("svc", healthpb.HealthCheckResponse_NOT_SERVING)
	opts := h.options()
	opts.Health, opts.HealthService = status, "svc"
	cancel, ended := h.run(opts)
	close(h.slow.finish)
	if err := callSlow(h.dial()); err != nil { // it serves, unlisted
		t.Fatal(err)
	}
	h.saw()
	status.SetServingStatus("svc", healthpb.HealthCheckResponse_SERVING)
	h.saw("serving")
	status.SetServingStatus("svc", healthpb.HealthCheckResponse_NOT_SERVING)
	h.saw("serving", "draining", "")
	status.SetServingStatus("svc", healthpb.HealthCheckResponse_SERVING)
	h.saw("serving", "draining", "", "serving")
	status.Shutdown()
	h.saw("serving", "draining", "", "serving", "draining", "")
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	h.saw("serving", "draining", "", "serving", "draining", "")
}

// An end while it is being taken out anyway: out first, stopped then.
func TestEndWhileNotServing(t *testing.T) {
	h := newHouse(t)
	status := health.NewServer()
	opts := h.options()
	opts.Health, opts.DrainDelay = status, time.Second
	cancel, ended := h.run(opts)
	h.saw("serving")
	status.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	h.saw("serving", "draining")
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	resp, err := h.client.Get(t.Context(), "svc/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 0 {
		t.Errorf("listed after the end: %v, %v", resp.Kvs, err)
	}
	h.saw("serving", "draining", "")
}

// A status that flaps while etcd is away is no reason to stop serving.
func TestHealthFlapsWhileEtcdIsAway(t *testing.T) {
	h := newHouse(t)
	status := health.NewServer()
	opts := h.options()
	opts.Health = status
	cancel, ended := h.run(opts)
	h.saw("serving")
	h.etcd.Member(0).Kill()
	status.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	time.Sleep(7 * time.Second) // deregistration is given up, to go on behind
	status.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	close(h.slow.finish)
	if err := callSlow(h.dial()); err != nil {
		t.Fatalf("it stopped serving: %v", err)
	}
	h.etcd.Member(0).Start()
	h.etcd.WaitReady()
	key := rollcall.Key("svc", h.lis.Addr().String())
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		resp, err := h.client.Get(t.Context(), key)
		if err == nil && len(resp.Kvs) == 1 {
			if inst, err := rollcall.Decode(resp.Kvs[0]); err == nil && !inst.Draining() && inst.Lease != 0 {
				break
			}
		}
		if time.Since(began) > waitMost {
			t.Fatalf("not listed: %v, %v", resp, err)
		}
	}
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestServerThatEndsByItself(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(h *house)
		ok   bool
	}{
		{"stopped", func(h *house) { h.srv.Stop() }, true},
		{"stopped gracefully", func(h *house) { h.srv.GracefulStop() }, true},
		{"its listener failed", func(h *house) { h.lis.Close() }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHouse(t)
			opts := h.options()
			opts.DrainDelay = time.Hour // nobody is there to notice
			_, ended := h.run(opts)
			h.saw("serving")
			close(h.slow.finish)
			if err := callSlow(h.dial()); err != nil {
				t.Fatal(err)
			}
			row.end(h)
			if err := ended(); (err == nil) != row.ok {
				t.Errorf("Run: %v", err)
			}
			h.saw("serving", "draining", "")
		})
	}
}

func TestEtcdIsDownAtTheStart(t *testing.T) {
	h := newHouse(t)
	h.etcd.Member(0).Kill()
	cancel, ended := h.run(h.options())
	close(h.slow.finish)
	if err := callSlow(h.dial()); err != nil {
		t.Fatal(err)
	}
	h.etcd.Member(0).Start()
	h.etcd.WaitReady()
	h.saw("serving")
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	h.saw("serving", "draining", "")

	// And if it never comes: the end does not wait for it.
	h.newServer()
	h.etcd.Member(0).Kill()
	began := time.Now()
	cancel, ended = h.run(h.options())
	close(h.slow.finish)
	if err := callSlow(h.dial()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	t.Logf("ended %v after the start", time.Since(began))
}

// Metadata that is no object carries no mark; the server is taken out all the same.
func TestMetadataWithoutAMark(t *testing.T) {
	h := newHouse(t)
	opts := h.options()
	opts.DrainDelay = time.Hour
	opts.Endpoint = rollcall.Endpoint{ID: "one", Metadata: "blue"}
	var log strings.Builder
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cancel, ended := h.run(opts)
	h.saw("serving")
	if !strings.Contains(log.String(), "the metadata is not an object") {
		t.Errorf("log %q, want a warning", &log)
	}
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	h.saw("serving", "")
}

func TestOptionsThatCannotWork(t *testing.T) {
	client := clientv3.NewCtxClient(t.Context()) // nothing is asked of it
	defer client.Close()
	registrar, err := rollcall.NewRegistrar(directoryOf(t, client), rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	listen := func(t *testing.T, addr string) net.Listener {
		lis, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { lis.Close() })
		return lis
	}
	defer registrar.Close()
	for _, row := range []struct {
		name   string
		addr   string // to listen at; "": in memory
		opts   serving.Options
		health bool
		field  string
	}{
		{"a wildcard listener without an address", "0.0.0.0:0", serving.Options{Service: "svc"}, false, "address"},
		{"the same with health", ":0", serving.Options{Service: "svc"}, true, "address"},
		{"a listener that is no TCP", "", serving.Options{Service: "svc"}, false, "address"},
		{"a bad address", "127.0.0.1:0", serving.Options{Service: "svc", Endpoint: rollcall.Endpoint{Addr: "nowhere"}}, true, "address"},
		{"no service", "127.0.0.1:0", serving.Options{}, true, "service"},
		{"two names and a list of names", "127.0.0.1:0", serving.Options{Service: "svc", Services: []string{"b"}}, false, "service"},
		{"a service twice", "127.0.0.1:0", serving.Options{Services: []string{"svc", "b", "svc/"}}, false, "service"},
		{"one bad service of two", "127.0.0.1:0", serving.Options{Services: []string{"svc", "//"}}, false, "service"},
		{"a negative delay", "127.0.0.1:0", serving.Options{Service: "svc", DrainDelay: -1}, false, "DrainDelay"},
		{"a negative time-out", "127.0.0.1:0", serving.Options{Service: "svc", StopTimeout: -1}, false, "StopTimeout"},
		{"a health service without health", "127.0.0.1:0", serving.Options{Service: "svc", HealthService: "svc"}, false, "health service"},
		{"bad metadata", "127.0.0.1:0", serving.Options{Service: "svc", Endpoint: rollcall.Endpoint{Metadata: func() {}}}, true, "metadata"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var lis net.Listener = bufconn.Listen(1)
			if row.addr != "" {
				lis = listen(t, row.addr)
			}
			row.opts.Registrar = registrar
			if row.health {
				row.opts.Health = health.NewServer()
			}
			err := serving.Run(t.Context(), grpc.NewServer(), lis, row.opts)
			var input *rollcall.InputError
			if !errors.As(err, &input) || input.Field != row.field {
				t.Errorf("got %v, want an *InputError about the %s", err, row.field)
			}
		})
	}
	lis := listen(t, "127.0.0.1:0")
	for name, opts := range map[string]serving.Options{
		"no registrar and no client":    {Service: "svc"},
		"both a registrar and a client": {Service: "svc", Client: client, Registrar: registrar},
	} {
		if err := serving.Run(t.Context(), grpc.NewServer(), lis, opts); err == nil || !strings.Contains(err.Error(), "one of the two") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := serving.New(nil, serving.Options{Service: "svc", Registrar: registrar}); err == nil {
		t.Error("no error without a server")
	}
	if err := serving.Run(t.Context(), grpc.NewServer(), nil, serving.Options{Service: "svc", Registrar: registrar}); err == nil {
		t.Error("no error without a listener")
	}
}

// Defaults apply, a wildcard listener is fine with an address, and a closed registrar or client
// ends Run before anything is served, with health or without.
func TestClosedRegistrar(t *testing.T) {
	for _, withHealth := range []bool{false, true} {
		t.Run(fmt.Sprintf("health %v", withHealth), func(t *testing.T) {
			client := clientv3.NewCtxClient(context.Background())
			defer client.Close()
			registrar, err := rollcall.NewRegistrar(directoryOf(t, client), rollcall.RegistrarOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := registrar.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			lis, err := net.Listen("tcp", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			defer lis.Close()
			opts := serving.Options{Registrar: registrar, Service: "svc", Endpoint: rollcall.Endpoint{Addr: "10.0.0.1:5"}}
			if withHealth {
				opts.Health = health.NewServer()
			}
			if err := serving.Run(t.Context(), grpc.NewServer(), lis, opts); !errors.Is(err, rollcall.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
			client.Close()
			opts.Registrar, opts.Client = nil, client
			if err := serving.Run(t.Context(), grpc.NewServer(), lis, opts); !errors.Is(err, rollcall.ErrClosed) {
				t.Errorf("with a closed client: %v, want ErrClosed", err)
			}
		})
	}
}

// A registrar that is closed while the server runs leaves it unlisted, and a health status
// that changes then does not end it.
func TestRegistrarClosesWhileServing(t *testing.T) {
	h := newHouse(t)
	status := health.NewServer()
	var log logtest.Buffer
	opts := h.options()
	opts.Health, opts.Logger = status, slog.New(slog.NewTextHandler(&log, nil))
	cancel, ended := h.run(opts)
	h.saw("serving")
	if err := h.registrar.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(h.slow.finish)
	for range 3 {
		status.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		time.Sleep(20 * time.Millisecond) // or the flap may go unnoticed
		status.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		time.Sleep(20 * time.Millisecond)
		if err := callSlow(h.dial()); err != nil {
			t.Fatalf("it stopped serving: %v", err)
		}
	}
	cancel()
	if err := ended(); err != nil {
		t.Errorf("Run: %v", err)
	}
	h.saw("serving", "draining", "")
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "closed") {
		t.Errorf("logged, want one line of a closed registrar:\n%s", text)
	}
}

// The context ended before the server began.
func TestEndBeforeTheStart(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := serving.New(h.srv, h.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx, h.lis); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := s.Run(ctx, h.lis); err == nil {
		t.Error("a Server ran twice")
	}
}
