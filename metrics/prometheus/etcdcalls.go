// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// EtcdCalls counts the calls of etcd clients by method and code. It is a prometheus.Collector.
// Every attempt counts, also those that clientv3 repeats; a stream, such as that of watches, counts
// when it ends.
type EtcdCalls struct {
	prometheus.Collector
	handler *callCounter
}

// NewEtcdCalls returns an EtcdCalls, to be registered once for all clients that have its
// DialOptions.
func NewEtcdCalls() *EtcdCalls {
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_etcd_calls_total",
		Help: "Calls to etcd that have ended, by gRPC method and status code; every attempt counts.",
	}, []string{"method", "code"})
	return &EtcdCalls{ended, &callCounter{ended}}
}

// DialOptions are to be appended to clientv3.Config.DialOptions.
func (c *EtcdCalls) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithStatsHandler(c.handler)}
}

// callCounter implements stats.Handler, which unlike an interceptor is told of the end of a stream
// that nobody reads to its end.
type callCounter struct{ ended *prometheus.CounterVec }

type methodKey struct{}

// TagRPC implements stats.Handler.
func (c *callCounter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, methodKey{}, strings.TrimPrefix(info.FullMethodName, "/"))
}

// HandleRPC implements stats.Handler.
func (c *callCounter) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if end, ok := s.(*stats.End); ok {
		method, _ := ctx.Value(methodKey{}).(string)
		c.ended.WithLabelValues(method, status.Code(end.Error).String()).Inc()
	}
}

// TagConn implements stats.Handler.
func (c *callCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *callCounter) HandleConn(context.Context, stats.ConnStats) {}
