// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// Rate counts the messages that clients send to etcd: requests, and those on streams.
type Rate struct {
	mu   sync.Mutex
	sent []sending
}

type sending struct {
	at     time.Time
	method string
}

// Count makes the clients of a configuration count.
func (r *Rate) Count(cfg *clientv3.Config) {
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithStatsHandler(r))
}

// Between returns how many messages a second were sent, on average and at most, of the
// methods whose names contain the text.
func (r *Rate) Between(from, to time.Time, method string) (average, peak float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seconds := make(map[int]float64)
	for _, s := range r.sent {
		if !s.at.Before(from) && s.at.Before(to) && strings.Contains(s.method, method) {
			seconds[int(s.at.Sub(from)/time.Second)]++
		}
	}
	total := 0.0
	for _, n := range seconds {
		total += n
		peak = max(peak, n)
	}
	return total / to.Sub(from).Seconds(), peak
}

type methodKey struct{}

// TagRPC implements stats.Handler, as do the other three.
func (r *Rate) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, methodKey{}, info.FullMethodName)
}

func (r *Rate) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutPayload); ok {
		method, _ := ctx.Value(methodKey{}).(string)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent = append(r.sent, sending{time.Now(), method})
	}
}

func (r *Rate) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r *Rate) HandleConn(context.Context, stats.ConnStats)                       {}

// Sent returns how many messages were sent by methods whose names contain the text.
func (r *Rate) Sent(from, to time.Time, method string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sent {
		if !s.at.Before(from) && s.at.Before(to) && strings.Contains(s.method, method) {
			n++
		}
	}
	return n
}
