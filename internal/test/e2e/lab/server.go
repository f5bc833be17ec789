// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// Server is a gRPC server that answers with its name.
type Server struct {
	testpb.UnimplementedTestServiceServer
	name string
	Addr string
}

func (s *Server) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{ServerId: s.name}, nil
}

func StartServer(tb testing.TB, name string) *Server {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{name: name, Addr: ln.Addr().String()}
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

// CallNamed makes one call and returns the name of the server that answered.
func CallNamed(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	resp, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{}, opts...)
	return resp.GetServerId(), err
}
