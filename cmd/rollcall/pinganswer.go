// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// answer is what an endpoint made of a ping.
type answer struct {
	ID             string           `json:"id"`
	Addr           string           `json:"addr"`
	Status         inventory.Status `json:"status"` // in etcd
	Answers        bool             `json:"answers"`
	Health         string           `json:"health,omitempty"`         // as in grpc.health.v1; "" without a health service
	ConnectSeconds float64          `json:"connectSeconds,omitempty"` // TCP
	CallSeconds    float64          `json:"callSeconds,omitempty"`    // a call on an open connection
	Error          string           `json:"error,omitempty"`
}

// ask dials the endpoint and calls its health service.
func (p *answer) ask(ctx context.Context, creds credentials.TransportCredentials) {
	begun := time.Now()
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		p.Error = plain(err)
		return
	}
	p.ConnectSeconds = time.Since(begun).Seconds()
	tcp.Close()
	conn, err := grpc.NewClient("passthrough:///"+p.Addr, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		p.Error = plain(err)
		return
	}
	defer conn.Close()
	health := healthpb.NewHealthClient(conn)
	resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{}) // opens the connection
	if p.Answers = isAnswer(err); p.Answers {
		begun = time.Now()
		resp, err = health.Check(ctx, &healthpb.HealthCheckRequest{})
		p.CallSeconds = time.Since(begun).Seconds()
	}
	switch {
	case err == nil:
		p.Health = resp.Status.String()
	case status.Code(err) != codes.Unimplemented:
		p.Error = plain(err)
	}
}

// isAnswer reports whether a call's result is from a gRPC server: gRPC itself makes the others.
func isAnswer(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
		return false
	}
	return true
}

// text is the answer for a table.
func (p *answer) text() string {
	switch {
	case p.Error != "":
		return p.Error
	case p.Health == "":
		return "no health service"
	}
	return p.Health
}
