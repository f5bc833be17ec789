// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	_ "github.com/rollcall-grpc/rollcall/balancer/weighted"
	_ "github.com/rollcall-grpc/rollcall/balancer/zone"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// fleet is gRPC servers, and the keys that they have under one service.
type fleet struct {
	t       *testing.T
	cluster *etcdtest.Cluster
	etcd    *clientv3.Client
	service string
	servers map[string]*server
	accepts atomic.Int64 // connections of all servers, ever
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	return newFleetOf(t, etcdtest.New(t, etcdtest.Options{}))
}

func newFleetOf(t *testing.T, cluster *etcdtest.Cluster) *fleet {
	t.Helper()
	return &fleet{t: t, cluster: cluster, etcd: cluster.Client(t), service: "svc", servers: make(map[string]*server)}
}

// server answers with its name; a stream goes on until it is told to end.
type server struct {
	testpb.UnimplementedTestServiceServer
	fleet   *fleet
	name    string
	addr    string
	grpc    *grpc.Server
	health  *health.Server
	accepts atomic.Int64
	calls   atomic.Int64
	failing atomic.Bool
}

func (s *server) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.calls.Add(1)
	if s.failing.Load() {
		return nil, status.Error(codes.Internal, "failing")
	}
	return &testpb.SimpleResponse{ServerId: s.name}, nil
}

// StreamingOutputCall sends a message for each that is asked for, in their intervals.
func (s *server) StreamingOutputCall(req *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for _, p := range req.ResponseParameters {
		time.Sleep(time.Duration(p.IntervalUs) * time.Microsecond)
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
	return nil
}

type counting struct {
	net.Listener
	s *server
}

func (l counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.s.accepts.Add(1)
		l.s.fleet.accepts.Add(1)
	}
	return conn, err
}

// newServer listens and does not serve yet.
func (f *fleet) newServer(name string) (*server, net.Listener) {
	f.t.Helper()
	return f.newServerAt(name, "127.0.0.1:0")
}

func (f *fleet) newServerAt(name, addr string) (*server, net.Listener) {
	f.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &server{fleet: f, name: name, addr: ln.Addr().String(), grpc: grpc.NewServer(), health: health.NewServer()}
	testpb.RegisterTestServiceServer(s.grpc, s)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	return s, counting{ln, s}
}

// start runs servers, without keys.
func (f *fleet) start(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.serve(f.newServer(name))
	}
}

// restart stops a server and runs it again at its address.
func (f *fleet) restart(name string) {
	f.t.Helper()
	old := f.servers[name]
	old.grpc.Stop()
	f.serve(f.newServerAt(name, old.addr))
}

func (f *fleet) serve(s *server, ln net.Listener) {
	f.servers[s.name] = s
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.grpc.Serve(ln) })
	f.t.Cleanup(func() {
		s.grpc.Stop()
		wg.Wait()
	})
}

// put writes a server's key.
func (f *fleet) put(name string, metadata map[string]any) {
	f.t.Helper()
	value, err := json.Marshal(map[string]any{"Addr": f.servers[name].addr, "Metadata": metadata})
	if err != nil {
		f.t.Fatal(err)
	}
	lab.PutValue(f.t, f.etcd, f.service+"/"+name, string(value))
}

func (f *fleet) remove(name string) { lab.Remove(f.t, f.etcd, f.service+"/"+name) }

// dial returns a channel with a service config of its own.
func (f *fleet) dial(target, config string, opts ...grpc.DialOption) *grpc.ClientConn {
	f.t.Helper()
	b, err := resolver.NewBuilder(f.etcd)
	if err != nil {
		f.t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, append(opts, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(config))...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

func policy(name, settings string) string {
	return fmt.Sprintf(`{"loadBalancingConfig":[{%q:%s}]}`, name, settings)
}

// shares makes calls, several at a time, and returns which share of them each server got,
// and how many failed.
func (f *fleet) shares(conn *grpc.ClientConn, calls int) (shares map[string]float64, failed int) {
	f.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := make(map[string]int)
	const callers = 4
	for range callers {
		wg.Go(func() {
			for range calls / callers {
				name, err := lab.Call(f.t, conn)
				mu.Lock()
				if err != nil {
					failed++
				} else {
					got[name]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	shares = make(map[string]float64)
	for name, n := range got {
		shares[name] = float64(n) / float64(calls/callers*callers-failed)
	}
	return shares, failed
}

// becomes calls until the shares are as wanted, within a tolerance.
func (f *fleet) becomes(conn *grpc.ClientConn, calls int, tolerance float64, want map[string]float64) (took time.Duration) {
	f.t.Helper()
	began := time.Now()
	for {
		at := time.Since(began)
		got, _ := f.shares(conn, calls)
		off := differs(got, want, tolerance)
		if off == "" {
			return at
		}
		if time.Since(began) > lab.WaitMost {
			f.t.Fatalf("shares %v, want %v: %s", got, want, off)
		}
	}
}

// differs says which share is not within a tolerance of what it should be.
func differs(got, want map[string]float64, tolerance float64) string {
	for name := range got {
		if _, ok := want[name]; !ok {
			return fmt.Sprintf("%s is called", name)
		}
	}
	for name, share := range want {
		if d := got[name] - share; d > tolerance || d < -tolerance {
			return fmt.Sprintf("%s has %.3f, want %.3f", name, got[name], share)
		}
	}
	return ""
}
