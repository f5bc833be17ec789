// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
	"github.com/rollcall-grpc/rollcall/serving"
)

// idleServer serves nothing until it is stopped.
type idleServer struct {
	once    sync.Once
	stopped chan struct{}
}

func (s *idleServer) Serve(net.Listener) error { <-s.stopped; return nil }
func (s *idleServer) Stop()                    { s.once.Do(func() { close(s.stopped) }) }
func (s *idleServer) GracefulStop()            { s.Stop() }

// probed is a server on an etcd in memory, in a bubble of virtual time.
type probed struct {
	*testing.T
	server *serving.Server
	store  *fakeetcd.Store
	conn   *fakeetcd.Conn
	srv    *idleServer
	run    func() (end func())
	cancel func()         // ends what run began
	log    logtest.Buffer // by the Directory's logger
}

func probe(t *testing.T, opts serving.Options, test func(p *probed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &probed{T: t, store: fakeetcd.New(), srv: &idleServer{stopped: make(chan struct{})}}
		defer p.store.Close()
		p.conn = p.store.Connect(context.Background())
		opts.Services, opts.Endpoint.Addr = []string{"a", "b"}, "h:1"
		opts.Client = p.conn.Client
		directoryOf(t, opts.Client).SetLogger(slog.New(slog.NewTextHandler(&p.log, nil)))
		var err error
		if p.server, err = serving.New(p.srv, opts); err != nil {
			t.Fatal(err)
		}
		p.run = func() (end func()) {
			var ctx context.Context
			ctx, p.cancel = context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- p.server.Run(ctx, bufconn.Listen(1)) }()
			synctest.Wait()
			return func() {
				p.cancel()
				if err := <-done; err != nil {
					t.Errorf("Run: %v", err)
				}
			}
		}
		test(p)
	})
}

// says fails unless a probe is answered so; "ready" is 200.
func (p *probed) says(want string) {
	p.Helper()
	w := httptest.NewRecorder()
	p.server.Readiness().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ready", nil))
	code := http.StatusServiceUnavailable
	if want == "ready" {
		code = http.StatusOK
	}
	body := w.Body.String()
	if w.Code != code || !strings.Contains(body, want) || strings.Count(body, "\n") != 1 || !strings.HasSuffix(body, "\n") {
		p.Errorf("got %d %q, want %d and one line with %q", w.Code, body, code, want)
	}
}

// An etcd that is away, for as long as may be, and lost leases and data take no server out.
func TestReadinessOutlivesEtcd(t *testing.T) {
	probe(t, serving.Options{}, func(p *probed) {
		p.says("has not been started")
		p.conn.Cut()
		end := p.run()
		p.says("is not registered yet")
		time.Sleep(time.Minute)
		p.says("is not registered yet: ")
		p.conn.Mend()
		time.Sleep(10 * time.Second)
		p.says("ready")
		p.conn.Cut()
		for range 12 * 60 {
			time.Sleep(time.Minute)
			p.says("ready")
		}
		p.store.Wipe()
		p.conn.Mend()
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			p.says("ready")
		}
		state, _ := p.server.Registrations()[0].State()
		p.store.ExpireLease(state.Lease)
		for range 100 {
			p.says("ready")
			time.Sleep(100 * time.Millisecond)
		}
		p.cancel()
		synctest.Wait()
		p.says("the server is stopping")
		end()
		p.says("the server is stopping")
	})
}

// What was registered between two probes, and lost then, has been registered.
func TestReadinessNeedsNoProbeAtTheTime(t *testing.T) {
	probe(t, serving.Options{}, func(p *probed) {
		defer p.run()()
		p.conn.Cut()
		time.Sleep(time.Minute)
		if state, _ := p.server.Registrations()[0].State(); state.Phase != rollcall.Lost {
			t.Errorf("state %+v, want lost", state)
		}
		p.says("ready")
		p.conn.Mend()
	})
}

// A draining server is not ready, whoever drains it, also while etcd is away.
func TestReadinessOfADrainingServer(t *testing.T) {
	probe(t, serving.Options{}, func(p *probed) {
		defer p.run()()
		p.says("ready")
		g := p.server.Registrations()[1]
		ctx, cancel := context.WithTimeout(p.Context(), time.Second)
		defer cancel()
		if err := g.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		p.says(`"b/h:1" is draining`)
		p.conn.Cut()
		time.Sleep(time.Hour)
		p.says(`"b/h:1" is draining`)
		p.conn.Mend()
		time.Sleep(10 * time.Second)
		if err := g.Undrain(p.Context()); err != nil {
			t.Fatal(err)
		}
		p.says("ready")
		p.store.Put("a/h:1", `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`)
		time.Sleep(time.Second)
		p.says(`"a/h:1" is draining`)
	})
}

// What the health service says counts; what was registered once is ready again at once
// when it says SERVING while etcd is away.
func TestReadinessFollowsHealth(t *testing.T) {
	status := health.NewServer()
	probe(t, serving.Options{Health: status}, func(p *probed) {
		status.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		defer p.run()()
		p.says("the health service does not say SERVING")
		status.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		time.Sleep(time.Second)
		p.conn.Cut()
		time.Sleep(time.Minute)
		status.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		time.Sleep(time.Minute)
		p.says("the health service does not say SERVING")
		status.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
		time.Sleep(time.Minute)
		p.says("ready")
		p.conn.Mend()
	})
}

// A SIGTERM while etcd is away is told by the server and by its Registrar, in a line each, to the
// logger of the Directory.
func TestLogOfAnEndWhileEtcdIsAway(t *testing.T) {
	probe(t, serving.Options{}, func(p *probed) {
		end := p.run()
		time.Sleep(time.Minute)
		p.conn.Cut()
		before := len(p.log.String())
		end()
		var got []string
		for line := range strings.Lines(p.log.String()[before:]) {
			_, line, _ = strings.Cut(line, "level=")
			if line, _, _ = strings.Cut(line, ";"); !strings.Contains(line, "etcd unreachable") { // the Directory's
				got = append(got, line)
			}
		}
		want := []string{`WARN msg="cannot deregister yet`, `WARN msg="closed without an answer from etcd`}
		if !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	})
}

// A server that has ended, or whose registrar was closed, is not ready.
func TestReadinessAfterTheEnd(t *testing.T) {
	probe(t, serving.Options{}, func(p *probed) {
		end := p.run()
		p.says("ready")
		p.srv.Stop()
		time.Sleep(time.Second)
		p.says("the server has stopped")
		end()
	})
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		registrar, err := rollcall.NewRegistrar(directoryOf(t, store.Connect(context.Background()).Client), rollcall.RegistrarOptions{})
		if err != nil {
			t.Fatal(err)
		}
		srv := &idleServer{stopped: make(chan struct{})}
		s, err := serving.New(srv, serving.Options{Registrar: registrar, Service: "a", Endpoint: rollcall.Endpoint{Addr: "h:1"}})
		if err != nil {
			t.Fatal(err)
		}
		p := &probed{T: t, server: s}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, bufconn.Listen(1)) }()
		synctest.Wait()
		p.says("ready")
		registrar.Close()
		p.says(`the registration of "a/h:1" is closed`)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
