// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package greeter is a gRPC service of one method, Greet, as protoc would make it of
// examples/polyglot/greeter.proto.
package greeter

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Server is what a program implements.
type Server interface {
	Greet(ctx context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

// Named greets with its own name.
type Named string

// Greet implements Server.
func (n Named) Greet(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return wrapperspb.String(string(n)), nil
}

const service, method = "greeter.Greeter", "Greet"

// Register adds the service to a gRPC server.
func Register(s grpc.ServiceRegistrar, server Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*Server)(nil),
		Methods: []grpc.MethodDesc{{MethodName: method, Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return srv.(Server).Greet(ctx, in)
		}}},
	}, server)
}

// Greet calls the service.
func Greet(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/"+service+"/"+method, wrapperspb.String("Go"), out, opts...)
	return out.GetValue(), err
}
