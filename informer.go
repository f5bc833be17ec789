// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// informer follows one key range for all who subscribe to it: a Reflector that fills a store,
// with a fallback while etcd does not answer. It runs from the first subscription to the last.
type informer struct {
	source    *source
	keys      etcdkv.KeyRange
	store     *store
	reflector *reflector.Reflector
	stop      func() // ends and joins what runs
}

// newInformer begins to follow a key range; prefix is what its snapshots have, and remembered
// its last snapshot, if any.
func newInformer(s *source, keys etcdkv.KeyRange, prefix string, preservation SelfPreservation, f *fallbacks, remembered *Snapshot) *informer {
	in := &informer{source: s, keys: keys}
	opts := topic.Options[Snapshot]{
		Reason:    func() error { return s.silenceOf(in.reflector) },
		Fallback:  remembered,
		Searching: !keys.IsSingleKey() && f.disk != nil,
	}
	hasFallback := opts.Fallback != nil || opts.Searching
	if hasFallback {
		opts.Observer = make(chan struct{}, 1)
	}
	if keys.IsSingleKey() {
		preservation = SelfPreservation{}
	}
	in.store = newStore(topic.New(opts), prefix, preservation, s.log)
	var stopReflector func()
	in.reflector, stopReflector = s.reflect(keys, in.store, false)
	stopFallback := func() {}
	if hasFallback {
		stopFallback = start(func(ctx context.Context) { f.serve(ctx, in.store, in.reflector.Silence, s.connState) })
	}
	in.stop = func() {
		stopReflector()
		stopFallback()
		in.store.stop()
	}
	return in
}

// service returns the name of the service that the informer follows, or its prefix.
func (in *informer) service() string { return strings.TrimSuffix(in.store.empty.prefix, "/") }

// start runs a function in a goroutine and returns what cancels and joins it.
func start(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
