// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// healthStream receives changes of a service's status from the health server's Watch, in
// process.
type healthStream struct {
	grpc.ServerStream // nil: Watch calls only Send and Context
	ctx               context.Context
	cancel            context.CancelFunc
	done              chan struct{}
	serving           atomic.Bool
	changed           chan struct{} // capacity 1
}

// watchHealth follows the status of a service until close.
func watchHealth(srv *health.Server, service string) *healthStream {
	s := &healthStream{changed: make(chan struct{}, 1), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(s.done)
		_ = srv.Watch(&healthpb.HealthCheckRequest{Service: service}, s)
	}()
	return s
}

func (s *healthStream) close() {
	s.cancel()
	<-s.done
}

func (s *healthStream) Context() context.Context { return s.ctx }

func (s *healthStream) Send(resp *healthpb.HealthCheckResponse) error {
	s.serving.Store(resp.Status == healthpb.HealthCheckResponse_SERVING)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}
