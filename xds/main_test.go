// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	grpcxds "google.golang.org/grpc/xds"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/xds"
)

func TestMain(m *testing.M) {
	// Read by grpc-go when a channel is made with no configuration of its own.
	_ = os.Unsetenv("GRPC_XDS_BOOTSTRAP")
	goleak.VerifyTestMain(m)
}

// lab is an etcd and an xDS server of its services.
type lab struct {
	etcd      *fakeetcd.Store
	conn      *fakeetcd.Conn
	directory *rollcall.Directory
	server    *xds.Server
	addr      string
}

func newLab(t *testing.T, opts xds.Options) *lab {
	t.Helper()
	l := &lab{etcd: fakeetcd.New()}
	t.Cleanup(l.etcd.Close)
	l.conn = l.etcd.Connect(context.Background())
	t.Cleanup(l.conn.Close)
	var err error
	if l.directory, err = rollcall.NewDirectory(l.conn.Client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.directory.Close)
	if l.server, err = xds.NewServer(l.directory, opts); err != nil {
		t.Fatal(err)
	}
	l.addr = serve(t, func(srv *grpc.Server) { l.server.Register(srv) }, xds.ServerOption())
	t.Cleanup(l.server.Close) // before the gRPC server stops
	return l
}

// serve starts a gRPC server and returns its address.
func serve(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(opts...)
	register(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(lis)
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return lis.Addr().String()
}

// backend answers with its name.
type backend struct {
	testpb.UnimplementedTestServiceServer
	name string
}

func (b backend) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{ServerId: b.name}, nil
}

func (l *lab) put(id, addr, metadata string) {
	l.etcd.Put(id, fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":%s}`, addr, metadata))
}

// start starts a server and stores its endpoint.
func (l *lab) start(t *testing.T, key, metadata string) (addr string) {
	t.Helper()
	addr = serve(t, func(srv *grpc.Server) { testpb.RegisterTestServiceServer(srv, backend{name: key}) })
	l.put(key, addr, metadata)
	return addr
}

// dial returns a channel of grpc-go's own xDS client.
func (l *lab) dial(t *testing.T, target, zone string) testpb.TestServiceClient {
	t.Helper()
	builder, err := grpcxds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil, `{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"authorities": {"test-authority": {"client_listener_resource_name_template": "xdstp://test-authority/envoy.config.listener.v3.Listener/%%s"}},
		"node": {"id": %q, "locality": {"region": "eu", "zone": %q}}}`, l.addr, t.Name(), zone))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

// calls returns how many of n calls each server answers, and the errors by their text.
func calls(t *testing.T, client testpb.TestServiceClient, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answers := make(map[string]int)
	for range n {
		resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		if err != nil {
			answers[err.Error()]++
			continue
		}
		answers[resp.ServerId]++
	}
	return answers
}
