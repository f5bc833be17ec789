// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// The shortest client.
func Example_client() {
	etcd := fakeetcd.New() // or a real one
	defer etcd.Close()
	conn := etcd.Connect(context.Background())
	defer conn.Close()
	addr, stop := serveAs("v1")
	defer stop()
	etcd.Put("my-service/a", fmt.Sprintf(`{"Addr":%q}`, addr))

	if err := call(conn.Client); err != nil {
		fmt.Println(err)
	}
	// Output: v1
}

func call(client *clientv3.Client) error {
	conn, err := resolver.NewClient(client, "my-service", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := testpb.NewTestServiceClient(conn).UnaryCall(context.Background(), &testpb.SimpleRequest{})
	if err != nil {
		return err
	}
	fmt.Println(answer.ServerId)
	return nil
}

// newest is a balancing policy that calls the servers of the greatest version, in turn.
type newest struct{}

func (newest) Name() string { return "newest" }

// Build leaves connections to gRPC: a pick_first for each endpoint.
func (newest) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return endpointsharding.NewBalancer(newestConn{cc}, opts, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
}

type newestConn struct{ balancer.ClientConn }

// UpdateState puts a picker of our own in the place of the children's.
func (c newestConn) UpdateState(s balancer.State) {
	best, picker := "", &inTurn{}
	for _, child := range endpointsharding.ChildStatesFromPicker(s.Picker) {
		if child.State.ConnectivityState != connectivity.Ready {
			continue
		}
		version := resolver.AttributesFromEndpoint(child.Endpoint).Version
		if version > best {
			best, picker.among = version, nil
		}
		if version == best {
			picker.among = append(picker.among, child.State.Picker)
		}
	}
	if len(picker.among) > 0 {
		s.Picker = picker
	}
	c.ClientConn.UpdateState(s)
}

type inTurn struct {
	next  atomic.Uint32
	among []balancer.Picker
}

func (p *inTurn) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	return p.among[p.next.Add(1)%uint32(len(p.among))].Pick(info)
}

// A picker that reads what the registry knows of each server.
func Example_picker() {
	balancer.Register(newest{})
	etcd := fakeetcd.New() // or a real one
	defer etcd.Close()
	client := etcd.Connect(context.Background())
	defer client.Close()
	for _, version := range []string{"v1", "v2"} {
		addr, stop := serveAs(version)
		defer stop()
		etcd.Put("my-service/"+version, fmt.Sprintf(`{"Addr":%q,"Metadata":{"version":%q}}`, addr, version))
	}

	b, err := resolver.NewBuilder(client.Client)
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := grpc.NewClient("etcd:///my-service", grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"newest":{}}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	for last := ""; last != "v2"; { // whoever is connected first is called first
		answer, err := testpb.NewTestServiceClient(conn).UnaryCall(context.Background(), &testpb.SimpleRequest{}, grpc.WaitForReady(true))
		if err != nil {
			fmt.Println(err)
			return
		}
		last = answer.ServerId
	}
	fmt.Println("calls go to v2")
	// Output: calls go to v2
}

type versioned struct {
	testpb.UnimplementedTestServiceServer
	version string
}

func (s versioned) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{ServerId: s.version}, nil
}

func serveAs(version string) (addr string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	srv := grpc.NewServer()
	testpb.RegisterTestServiceServer(srv, versioned{version: version})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return l.Addr().String(), func() {
		srv.Stop()
		<-done
	}
}
