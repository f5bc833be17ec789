// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Group is what the Reflectors of one client share: the connection monitor, the bound on
// lists under way, and what is known of the right to read.
type Group struct {
	client  *clientv3.Client
	log     *slog.Logger
	monitor *etcdconn.Monitor
	lister  *lister

	watches, inconsistencies atomic.Uint64
	restarts                 causeCounter // of watches that ended

	mu          sync.Mutex
	access      map[*Reflector]access // of the Reflectors that run
	granted     chan struct{}         // closed and replaced when a range may be read that was refused before
	denials     denialLog
	stopMonitor func() // ends and joins it; nil while no Reflector runs
}

// access is what is known of the right to read a range.
type access int

const (
	accessUnknown access = iota
	accessGranted
	accessRefused
)

// Options are the settings of a Reflector.
type Options struct {
	// CheckPeriod is how often, on average, the content of up to 1,000 keys is compared with
	// etcd; larger ranges are less often, in proportion. backoff.Never: never.
	CheckPeriod time.Duration
	// Optional ranges are those that most clients have no right to read: that is not
	// logged, and tried again every 5 min only.
	Optional bool
}

// Counters count what a Group has done.
type Counters struct {
	Lists, Watches, Inconsistencies uint64
	ListsBy                         Causes // lists by what they were for
	RestartsBy                      Causes // watches that ended and are opened anew, by why they ended
}

// NewGroup returns the Group of a client. LastKnown describes what is known, for the log of an
// outage; see etcdconn.Options.
func NewGroup(client *clientv3.Client, log *slog.Logger, lastKnown func() string) *Group {
	g := &Group{client: client, log: log, access: make(map[*Reflector]access), granted: make(chan struct{})}
	g.monitor = etcdconn.New(etcdconn.Options{Client: client, Logger: log, ProbeKeys: g.probeKeys, LastKnown: lastKnown})
	g.lister = newLister(client, g.monitor)
	return g
}

// Monitor returns the monitor of the client's connection.
func (g *Group) Monitor() *etcdconn.Monitor { return g.monitor }

// Counters returns what the Group has done so far.
func (g *Group) Counters() Counters {
	c := Counters{Watches: g.watches.Load(), Inconsistencies: g.inconsistencies.Load()}
	c.ListsBy, c.Lists = g.lister.lists.load()
	c.RestartsBy, _ = g.restarts.load()
	return c
}

// List reads a range once, linearizably, into what list returns last.
func (g *Group) List(ctx context.Context, keys etcdkv.KeyRange, list func() Adder) (Version, error) {
	at, err := g.lister.list(ctx, query{keys: keys, cause: Request, newList: list})
	return Version{Revision: at.Revision}, err
}

// Hold has no list begin until release: the first lists of Reflectors that are started meanwhile
// begin together.
func (g *Group) Hold() (release func()) {
	g.lister.limiter.hold()
	return g.lister.limiter.release
}

// Start has a Reflector keep a store in line with a range, until stop, which joins it.
func (g *Group) Start(keys etcdkv.KeyRange, store Store, opts Options) (r *Reflector, stop func()) {
	r = newReflector(g, keys, store, opts)
	g.mu.Lock()
	g.access[r] = accessUnknown
	if g.stopMonitor == nil {
		g.stopMonitor = g.monitor.Start()
	}
	g.mu.Unlock()
	join := background.Start(g.client.Ctx(), r.run)
	return r, func() {
		join()
		g.forget(r)
	}
}

// forget drops a Reflector that has ended, and ends the monitor with the last one.
func (g *Group) forget(r *Reflector) {
	g.mu.Lock()
	delete(g.access, r)
	stop := func() {}
	if len(g.access) == 0 && g.stopMonitor != nil {
		g.denials.stopLocked()
		stop, g.stopMonitor = g.stopMonitor, nil
	}
	g.mu.Unlock()
	stop()
}

// setAccess notes whether a range may be read: the connection is probed with such ranges,
// and a right that was granted has others look whether theirs was too.
func (g *Group) setAccess(r *Reflector, now access) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was, runs := g.access[r]
	if !runs {
		return
	}
	g.access[r] = now
	if was == accessRefused && now == accessGranted {
		backoff.Renew(&g.granted)
	}
	g.denials.noteLocked(g, r, was, now)
}

// refused returns how many ranges may not be read, optional ones aside, and what closes when
// one may.
func (g *Group) refused() (n int, granted <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, a := range g.access {
		if a == accessRefused && !r.opts.Optional {
			n++
		}
	}
	return n, g.granted
}

// probeKeys returns keys of at most n ranges that may be read. If there are none it returns the
// key of any range, which perhaps may not be read.
func (g *Group) probeKeys(n int) (keys []string, readable bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var other []string
	for r, a := range g.access {
		switch {
		case a == accessGranted && len(keys) < n:
			keys = append(keys, r.keys.Key)
		case other == nil:
			other = []string{r.keys.Key}
		}
		if len(keys) == n {
			break
		}
	}
	if len(keys) == 0 {
		return other, false
	}
	return keys, true
}

// rangeError names the range that an error concerns. Its text is made when it is asked for: that takes
// more than all else that thousands of watches do when their stream breaks. See the scenario restart of
// module bench.
type rangeError struct {
	what string
	key  string
	err  error
}

func (e *rangeError) Error() string { return fmt.Sprintf("%s %q: %v", e.what, e.key, e.err) }
func (e *rangeError) Unwrap() error { return e.err }

func (r *Reflector) errorOf(what string, err error) error { return &rangeError{what, r.keys.Key, err} }
