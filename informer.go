// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// source is what a Directory reads with.
type source struct {
	client      *clientv3.Client
	logger      swappableLogger
	log         *slog.Logger // writes to logger
	group       *reflector.Group
	checkPeriod time.Duration // of consistency checks
}

// reflect keeps a store in line with a key range, until stop.
func (s *source) reflect(keys etcdkv.KeyRange, store reflector.Store, optional bool) (r *reflector.Reflector, stop func()) {
	return s.group.Start(keys, store, reflector.Options{CheckPeriod: s.checkPeriod, Optional: optional})
}

// outage returns why etcd cannot be reached now, nil where it can, as far as is known.
func (s *source) outage() error {
	if status, _ := s.group.Monitor().Status(); status.Outage != nil {
		return status.Outage.Cause
	}
	return nil
}

// recovered returns a channel that closes when waiting longer makes no sense: etcd can be
// reached again, or has another epoch.
func (s *source) recovered() <-chan struct{} { return s.group.Monitor().Recovered() }

// silenceOf returns why a Reflector has found nothing yet, nil while there is hope.
func (s *source) silenceOf(r *reflector.Reflector) error {
	if cause := s.outage(); cause != nil {
		return cause
	}
	if r.Silence() >= topic.AnswerTimeout {
		return fmt.Errorf("%w within %v", etcdkv.NoAnswer(s.client), topic.AnswerTimeout)
	}
	return nil
}

// connState returns the state of the client's connection; Ready where there is none to ask,
// as with a client made of parts.
func (s *source) connState() connectivity.State {
	if conn := s.client.ActiveConnection(); conn != nil {
		return conn.GetState()
	}
	return connectivity.Ready
}

// swappableLogger is a handler that passes everything on to a logger that can be replaced, to
// slog.Default() where there is none.
type swappableLogger struct{ to atomic.Pointer[slog.Logger] }

func (s *swappableLogger) logger() *slog.Logger {
	if log := s.to.Load(); log != nil {
		return log
	}
	return slog.Default()
}

func (s *swappableLogger) Enabled(ctx context.Context, level slog.Level) bool {
	return s.logger().Handler().Enabled(ctx, level)
}

func (s *swappableLogger) Handle(ctx context.Context, r slog.Record) error {
	return s.logger().Handler().Handle(ctx, r)
}

func (s *swappableLogger) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.logger().Handler().WithAttrs(attrs)
}

func (s *swappableLogger) WithGroup(name string) slog.Handler {
	return s.logger().Handler().WithGroup(name)
}

// informer follows one key range for all who subscribe to it: a Reflector that fills a store,
// with a fallback while etcd does not answer. It runs from the first subscription to the last.
type informer struct {
	source    *source
	keys      etcdkv.KeyRange
	store     *store
	reflector *reflector.Reflector
	began     time.Time
	stop      func() // ends and joins what runs
}

// newInformer begins to follow a key range; prefix is what its snapshots have, and remembered
// its last snapshot, if any.
func newInformer(s *source, keys etcdkv.KeyRange, prefix string, preservation SelfPreservation, latency *topic.Latency, f *fallbacks, remembered *Snapshot) *informer {
	in := &informer{source: s, keys: keys, began: time.Now()}
	opts := topic.Options[Snapshot]{
		Reason:    func() error { return s.silenceOf(in.reflector) },
		Fallback:  remembered,
		Latency:   latency,
		Searching: !keys.IsSingleKey() && f.disk != nil,
	}
	hasFallback := opts.Fallback != nil || opts.Searching
	if hasFallback {
		opts.Observer = make(chan struct{}, 1)
	}
	if keys.IsSingleKey() {
		preservation, opts.Latency = SelfPreservation{}, nil
	}
	in.store = newStore(topic.New(opts), prefix, preservation, s.log)
	var stopReflector func()
	in.reflector, stopReflector = s.reflect(keys, in.store, false)
	stopFallback := func() {}
	if hasFallback {
		stopFallback = background.Start(context.Background(), func(ctx context.Context) { f.serve(ctx, in.store, in.reflector.Silence, s.connState) })
	}
	in.stop = func() {
		stopReflector()
		stopFallback()
		in.store.stop()
	}
	return in
}

// prefix is what the keys start with.
func (in *informer) prefix() string { return in.store.empty.prefix }

// service returns the name of the service that the informer follows, "" for a view of many.
func (in *informer) service() string {
	service, ok := strings.CutSuffix(in.prefix(), "/")
	if !ok {
		return ""
	}
	return service
}

// countServices returns how many services have instances in a snapshot of the informer.
func (in *informer) countServices(snap *Snapshot) (n int) {
	if in.service() != "" {
		return min(len(snap.instances), 1)
	}
	last := ""
	for i, inst := range snap.instances {
		if service := inst.Service(); i == 0 || service != last {
			n++
			last = service
		}
	}
	return n
}
