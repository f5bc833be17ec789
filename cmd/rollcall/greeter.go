// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/serving"
)

// The demo's service has one method, which returns the server's name.
const (
	demoService       = "demo/greeter"
	demoServiceByEtcd = "demo/greeter-by-etcd"
	greeterMethod     = "/rollcall.demo.Greeter/Hello"
)

type greeter interface {
	hello(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error)
}

type greeterServer struct{ name string }

func (g greeterServer) hello(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error) {
	return wrapperspb.String(g.name), nil
}

var greeterDesc = grpc.ServiceDesc{
	ServiceName: "rollcall.demo.Greeter",
	HandlerType: (*greeter)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Hello",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			if err := decode(in); err != nil {
				return nil, err
			}
			return srv.(greeter).hello(ctx, in)
		},
	}},
}

// newDemoServer returns the hidden command that runs a server of the demo.
func newDemoServer(a *app) *cobra.Command {
	var name, by string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:    "demo-server",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := untilEOF(cmd.Context(), a.stdin)
			defer cancel()
			serve := a.serveGreeter
			if by == etcdNaming.name {
				serve = a.serveGreeterByEtcd
			}
			return a.demoServer(ctx, name, func(srv *grpc.Server, lis net.Listener) error { return serve(ctx, srv, lis, name, ttl) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "greeter", "the server's name and id")
	cmd.Flags().StringVar(&by, "naming", rollcallNaming.name, "the package to register with")
	cmd.Flags().DurationVar(&ttl, "ttl", 3*time.Second, "the TTL of the lease")
	return cmd
}

// demoServer listens, and has serve register the server and run it.
func (a *app) demoServer(ctx context.Context, name string, serve func(*grpc.Server, net.Listener) error) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	srv.RegisterService(&greeterDesc, greeterServer{name})
	fmt.Fprintf(a.stdout, "%d\n", time.Now().UnixNano())
	return serve(srv, lis)
}

func (a *app) serveGreeter(ctx context.Context, srv *grpc.Server, lis net.Listener, name string, ttl time.Duration) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return err
	}
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{TTL: ttl})
	if err != nil {
		return err
	}
	status := health.NewServer()
	healthpb.RegisterHealthServer(srv, status)
	err = serving.Run(ctx, srv, lis, serving.Options{
		Registrar: registrar, Service: demoService, Health: status,
		Endpoint:   rollcall.Endpoint{ID: name, Metadata: map[string]string{"version": "demo"}},
		DrainDelay: 500 * time.Millisecond,
	})
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.dialTimeout)
	defer cancel()
	if closed := registrar.Shutdown(closing); err == nil {
		err = closed
	}
	return err
}
