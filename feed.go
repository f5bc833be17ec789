// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/throttle"
)

// What ends a watch without anything being wrong with etcd.
var (
	errStreamReplaced = errors.New("watch stream was replaced")
	errNewHistory     = errors.New("etcd follows another history")
	errDrifted        = errors.New("snapshot differs from etcd")
	errWatchEnded     = errors.New("watch ended without a reason")
)

// feed keeps the snapshot of one span: list, watch, list again. One goroutine, run,
// owns it; subscriptions read what it publishes.
type feed struct {
	dir   *Directory
	span  etcdkv.KeyRange
	stop  func()        // cancels and joins run; set once, before the feed is shared
	saver *saver        // nil without a cache on disk; set once, before run
	asks  chan struct{} // capacity 1: Refresh was called

	// Owned by run.
	pending  map[string]entry // changes since the last publication
	room     []*Instance      // for the next snapshot
	revision int64            // revision that pending reaches
	resume   int64            // revision to watch from; 0: list first
	history  int
	retry    backoff.Backoff
	opened   time.Time         // when etcd confirmed the watch; zero: it has not
	asked    *Staleness        // the outage in which a member without a leader was asked for what it has
	pace     throttle.Throttle // of publications
	compared time.Time         // when a comparison with etcd was last begun
	audited  time.Time         // when the next thorough one is due
	lost     losses            // what vanished lately; nil without a Hold
	holding  time.Time         // when what is held changes by itself

	mu         sync.Mutex
	closed     error // why there will be no other snapshot; nil while there may be
	subs       map[*Subscription]struct{}
	due        []*Subscription // deliveries that are to be begun
	spare      bool            // a goroutine is about to begin with them
	snap       *Snapshot
	blank      *Snapshot // empty snapshot with the prefix
	remembered bool      // what was known before this feed began has been looked for
	before     *Snapshot // what was known before this feed began, stale; nil once there is better
	err        error     // why there is no snapshot yet
	heard      time.Time // last answer to a list, or the start
}

func newFeed(d *Directory, s etcdkv.KeyRange, prefix string, before *Snapshot) *feed {
	f := &feed{dir: d, span: s, asks: make(chan struct{}, 1), pending: make(map[string]entry),
		subs: make(map[*Subscription]struct{}), blank: &Snapshot{prefix: prefix}, before: before,
		remembered: d.cache == nil || s.End == "", heard: time.Now()}
	if d.hold.Share > 0 && s.End != "" {
		f.lost = make(losses)
	}
	return f
}

// start runs the feed, and what saves it, and returns what ends and joins both.
func (f *feed) start() (stop func()) {
	if f.dir.cache == nil || f.span.End == "" {
		return start(f.run)
	}
	f.saver = &saver{feed: f, wake: make(chan struct{}, 1)}
	stopSaver := start(f.saver.run)
	stopFeed := start(f.run)
	return func() {
		stopFeed()
		stopSaver()
	}
}

func (f *feed) subscribe(changed chan struct{}) *Subscription {
	s := &Subscription{feed: f, changed: changed, done: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[s] = struct{}{}
	if f.closed != nil {
		close(s.done)
	}
	notify(changed) // what is there already is news to this one
	return s
}

// unsubscribe reports whether s was the last, and returns what closes when its delivery
// under way has ended, nil where there is none.
func (f *feed) unsubscribe(s *Subscription) (last bool, ended <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.subs[s]; ok {
		delete(f.subs, s)
		if f.closed == nil {
			close(s.done)
		}
	}
	return len(f.subs) == 0, s.ended
}

// end closes every subscription for a reason, and returns what closes when their deliveries
// under way have ended.
func (f *feed) end(reason error) (ended []<-chan struct{}) {
	f.fail(reason)
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if f.closed == nil {
			close(s.done)
		}
		if s.ended != nil {
			ended = append(ended, s.ended)
		}
	}
	f.closed = cmp.Or(f.closed, reason)
	return ended
}

// reason returns why a subscription that is closed gets no other snapshot.
func (f *feed) reason() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cmp.Or(f.closed, ErrClosed)
}

func (f *feed) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) == 0
}

func (f *feed) latest() (*Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snap, f.err
}

// quiet returns how long no answer to a list has arrived, to its own or to those that it may
// have to wait for.
func (f *feed) quiet() time.Duration {
	f.mu.Lock()
	heard := f.heard
	f.mu.Unlock()
	return min(time.Since(heard), f.dir.lister.gate.quiet())
}

// wake has subscriptions look again, once what was known before has been looked for.
func (f *feed) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.remembered {
		return
	}
	f.remembered = true
	f.wakeLocked()
}

// remind has subscriptions look, from time to time, why there is no snapshot yet.
func (f *feed) remind(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.snap != nil || ctx.Err() != nil {
		return
	}
	f.wakeLocked()
	time.AfterFunc(answerGrace, func() { f.remind(ctx) })
}

func (f *feed) refresh() { notify(f.asks) }

// wakeLocked has all subscriptions look.
func (f *feed) wakeLocked() {
	for s := range f.subs {
		s.wakeLocked()
	}
}

// publish sets what subscriptions see and wakes them.
func (f *feed) publish(snap *Snapshot, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publishLocked(snap, err)
}

func (f *feed) publishLocked(snap *Snapshot, err error) {
	f.snap, f.err = snap, err
	if snap != nil && snap.stale == nil {
		f.before = nil
	}
	f.wakeLocked()
	if f.saver != nil {
		notify(f.saver.wake)
	}
}

// fail marks the snapshot stale, or says why there is none yet.
func (f *feed) fail(cause error) {
	snap := f.known()
	if snap == nil {
		f.publish(nil, cause)
		return
	}
	if stale := snap.stale; stale == nil || stale.Cause.Error() != cause.Error() {
		since := time.Now()
		if stale != nil {
			since = stale.Since
		}
		f.publish(snap.restated(&Staleness{Since: since, Cause: cause}), nil)
	}
}

// live takes the mark of staleness away.
func (f *feed) live() {
	if snap, _ := f.latest(); snap != nil && snap.stale != nil {
		f.publish(snap.restated(nil), nil)
	}
}
