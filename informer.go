// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// informer follows one key range for all who subscribe to it: a Reflector that fills a store,
// with a fallback while etcd does not answer. It runs from the first subscription to the last.
type informer struct {
	dir       *Directory
	keys      etcdkv.KeyRange
	store     *store
	reflector *reflector.Reflector
	stop      func() // ends and joins what runs
}

// subscribe adds a subscriber to a key range; prefix is what its snapshots have.
func (d *Directory) subscribe(keys etcdkv.KeyRange, prefix string, changed chan struct{}, deliver func(*Snapshot, error)) (*informer, *topic.Subscriber[Snapshot], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usableLocked(); err != nil {
		return nil, nil, err
	}
	in := d.informers[keys]
	if in == nil {
		in = d.startLocked(keys, prefix)
		d.informers[keys] = in
		defer in.store.topic.RemindLater()
	}
	return in, in.store.topic.Subscribe(changed, deliver), nil
}

func (d *Directory) startLocked(keys etcdkv.KeyRange, prefix string) *informer {
	preservation, lasting := d.opts.SelfPreservation, !keys.IsSingleKey()
	if !lasting {
		preservation = SelfPreservation{}
	}
	in := &informer{dir: d, keys: keys}
	opts := topic.Options[Snapshot]{
		Reason:    func() error { return d.silenceOf(in.reflector) },
		Fallback:  d.fallbacks.takeLocked(keys),
		Searching: lasting && d.fallbacks.disk != nil,
	}
	hasFallback := opts.Fallback != nil || opts.Searching
	if hasFallback {
		opts.Observer = make(chan struct{}, 1)
	}
	in.store = newStore(topic.New(opts), prefix, preservation, slog.New(&d.logger))
	var stopReflector func()
	in.reflector, stopReflector = d.group.Start(keys, in.store, reflector.Options{CheckPeriod: d.checkPeriod})
	stopFallback := func() {}
	if hasFallback {
		stopFallback = start(func(ctx context.Context) { d.fallbacks.serve(ctx, in) })
	}
	in.stop = func() {
		stopReflector()
		stopFallback()
		in.store.stop()
	}
	return in
}

// release ends an informer whose last subscriber has left, joins it, and remembers what it
// knew.
func (d *Directory) release(in *informer) {
	d.mu.Lock()
	last := in.store.topic.Count() == 0 && d.informers[in.keys] == in
	if last {
		delete(d.informers, in.keys)
		d.preservations += in.store.preservations.Load()
		if snap := in.store.topic.Known(); snap != nil && !in.keys.IsSingleKey() {
			d.fallbacks.rememberLocked(in.keys, snap)
		}
	}
	d.mu.Unlock()
	if last {
		in.stop()
	}
}

// connState returns the state of the client's connection; Ready where there is none to ask,
// as with a client made of parts.
func (in *informer) connState() connectivity.State {
	if conn := in.dir.client.ActiveConnection(); conn != nil {
		return conn.GetState()
	}
	return connectivity.Ready
}

// lastKnown returns of how many services endpoints are known, and how many endpoints.
func (d *Directory) lastKnown() (services, endpoints int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for keys, in := range d.informers {
		if keys.IsSingleKey() {
			continue
		}
		services++
		if snap := in.store.topic.Known(); snap != nil {
			endpoints += len(snap.instances)
		}
	}
	return services, endpoints
}

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

// service returns the name of the service that the informer follows, or its prefix.
func (in *informer) service() string { return strings.TrimSuffix(in.store.empty.prefix, "/") }
