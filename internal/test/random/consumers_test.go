// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// consumer observes a service in one of the possible ways.
type consumer interface {
	name() string
	differs(want *rollcall.Snapshot) error // from a linearizable list
	look()                                 // wrong is to check what was shown until now
	// wrong returns what was wrong on the way. If the store lost its data and then passed the
	// revision floor unnoticed, snapshots may mix both epochs until the next consistency
	// check: with unsure they are not compared with the truth.
	wrong(tr *truth, unsure bool) error
	close()
}

// follower is a subscription whose snapshots are all recorded.
type follower struct {
	what string
	sub  *rollcall.Subscription
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	last *rollcall.Snapshot   // the last that was checked
	seen []*rollcall.Snapshot // since
	some int                  // how many of them are to be checked
}

func newFollower(d *rollcall.Directory, what, service string) (*follower, error) {
	sub, err := d.Subscribe(service)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &follower{what: what, sub: sub, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for {
			snap, err := sub.Next(ctx)
			if err != nil {
				return
			}
			f.mu.Lock()
			f.seen = append(f.seen, snap)
			f.mu.Unlock()
		}
	}()
	return f, nil
}

func (f *follower) name() string { return f.what }

func (f *follower) differs(want *rollcall.Snapshot) error {
	snap := f.sub.Latest()
	switch {
	case snap == nil:
		return fmt.Errorf("shows nothing: %v", f.sub.Err())
	case snap.Staleness() != nil:
		return fmt.Errorf("is stale: %w", snap.Staleness().Cause)
	}
	return same(shown(snap), shown(want))
}

func (f *follower) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.some = len(f.seen)
}

func (f *follower) wrong(tr *truth, unsure bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, snap := range f.seen[:f.some] {
		if err := tr.explain(snap); err != nil && !unsure {
			return err
		}
		if f.last != nil && snap.Epoch() == f.last.Epoch() && snap.Revision() < f.last.Revision() {
			return fmt.Errorf("went back from revision %d to %d", f.last.Revision(), snap.Revision())
		}
		f.last = snap
	}
	f.seen, f.some = slices.Clone(f.seen[f.some:]), 0
	return nil
}

func (f *follower) close() {
	f.stop()
	<-f.done
	f.sub.Close()
}

// watcher adds the messages of a manager's watch up.
type watcher struct {
	what string
	stop context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	addrs map[string]string
	bad   error
}

func newWatcher(client *clientv3.Client, what, service string) (*watcher, error) {
	m, err := endpoints.NewManager(client, service)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{what: what, stop: stop, done: make(chan struct{}), addrs: make(map[string]string)}
	ch, err := m.NewWatchChannel(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	go func() {
		defer close(w.done)
		for updates := range ch {
			w.take(updates)
		}
		if ctx.Err() == nil {
			w.mu.Lock()
			w.bad = errors.New("was closed")
			w.mu.Unlock()
		}
	}()
	return w, nil
}

func (w *watcher) take(updates []*endpoints.Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range updates {
		_, known := w.addrs[u.Key]
		switch {
		case u.Op == endpoints.Add:
			w.addrs[u.Key] = u.Endpoint.Addr
		case known:
			delete(w.addrs, u.Key)
		default:
			w.bad = fmt.Errorf("deleted %q, which it never added", u.Key)
		}
	}
}

func (w *watcher) name() string { return w.what }

func (w *watcher) differs(want *rollcall.Snapshot) error {
	all := make(map[string]string)
	for inst := range want.All() {
		all[inst.Key] = inst.Addr
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return same(w.addrs, all)
}

func (w *watcher) look() {}

func (w *watcher) wrong(*truth, bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bad
}

func (w *watcher) close() {
	w.stop()
	<-w.done
}

// channel stands for a gRPC channel.
type channel struct {
	grpcresolver.ClientConn
	what string
	res  grpcresolver.Resolver

	mu   sync.Mutex
	last []string
}

func newChannel(d *rollcall.Directory, what, service string) (*channel, error) {
	b, err := resolver.NewBuilderWithOptions(d, resolver.Options{})
	if err != nil {
		return nil, err
	}
	c := &channel{what: what}
	c.res, err = b.Build(grpcresolver.Target{URL: url.URL{Scheme: resolver.Scheme, Path: "/" + service}}, c, grpcresolver.BuildOptions{})
	return c, err
}

func (c *channel) UpdateState(s grpcresolver.State) error {
	var addrs []string
	for _, ep := range s.Endpoints {
		for _, addr := range ep.Addresses {
			addrs = append(addrs, addr.Addr)
		}
	}
	slices.Sort(addrs)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = addrs
	return nil
}

func (c *channel) ReportError(error) {}

func (c *channel) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

func (c *channel) name() string { return c.what }

func (c *channel) differs(want *rollcall.Snapshot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := dialled(want); !slices.Equal(c.last, all) {
		return fmt.Errorf("has %q, etcd %q", c.last, all)
	}
	return nil
}

func (c *channel) look() {}

func (c *channel) wrong(*truth, bool) error { return nil }

func (c *channel) close() { c.res.Close() }

func same[V comparable](got, want map[string]V) error {
	for key, v := range want {
		if g, ok := got[key]; !ok || g != v {
			return fmt.Errorf("%q is %v, in etcd %v", key, g, v)
		}
	}
	for key, g := range got {
		if _, ok := want[key]; !ok {
			return fmt.Errorf("%q is %v, not in etcd", key, g)
		}
	}
	return nil
}

// patience is how long a comparison may go on failing.
type patience struct{ bound, poll time.Duration }
