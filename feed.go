// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
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
	span  span
	stop  func()        // cancels and joins run; set once, before the feed is shared
	saver *saver        // nil without a cache on disk; set once, before run
	asks  chan struct{} // capacity 1: Refresh was called

	// Owned by run.
	pending  map[string]entry // changes since the last publication
	room     []*Instance      // for the next snapshot
	revision int64            // revision that pending reaches
	resume   int64            // revision to watch from; 0: list first
	history  int
	retry    backoff
	opened   time.Time  // when etcd confirmed the watch; zero: it has not
	asked    *Staleness // the outage in which a member without a leader was asked for what it has
	pace     pace       // of publications
	compared time.Time  // when a comparison with etcd was last begun
	audited  time.Time  // when the next thorough one is due
	lost     losses     // what vanished lately; nil without a Hold
	holding  time.Time  // when what is held changes by itself

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

func newFeed(d *Directory, s span, prefix string, before *Snapshot) *feed {
	f := &feed{dir: d, span: s, asks: make(chan struct{}, 1), pending: make(map[string]entry),
		subs: make(map[*Subscription]struct{}), blank: &Snapshot{prefix: prefix}, before: before,
		remembered: d.cache == nil || s.end == "", heard: time.Now()}
	if d.hold.Share > 0 && s.end != "" {
		f.lost = make(losses)
	}
	return f
}

// start runs the feed, and what saves it, and returns what ends and joins both.
func (f *feed) start() (stop func()) {
	if f.dir.cache == nil || f.span.end == "" {
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

// follow watches from where the feed is, after a list where one is needed, until the
// watch ends, and returns why it did.
func (f *feed) follow(ctx context.Context) error {
	if f.resume == 0 {
		if err := f.list(ctx); err != nil {
			return err
		}
	}
	w := f.open(ctx)
	defer w.close()
	if err := f.heed(w); err != nil {
		return err
	}
	flush := time.NewTimer(0)
	defer flush.Stop()
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		alarm.Reset(time.Until(f.nextAlarm()))
		var due <-chan time.Time
		if len(f.pending) > 0 {
			flush.Reset(time.Until(f.pace.due()))
			due = flush.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case w.events = <-w.opened:
		case resp, ok := <-w.events:
			if !ok {
				return errWatchEnded
			}
			if err := f.take(w.stream, resp); err != nil {
				return err
			}
			if !time.Now().Before(f.pace.due()) && len(w.events) == 0 {
				f.flush()
			}
		case <-due:
			f.flush()
		case <-alarm.C:
			f.expireHold()
			f.audit(w)
		case <-w.changed:
			if err := f.heed(w); err != nil {
				return err
			}
		case <-f.asks:
			w.compare(f, asHint)
		case err := <-w.compared:
			w.comparing = false
			if err := f.heedComparison(w, err); err != nil {
				return err
			}
		}
	}
}

// take applies one response of the watch.
func (f *feed) take(stream uint64, resp clientv3.WatchResponse) error {
	link := f.dir.link
	if err := typed(resp.Err()); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrPermissionDenied) {
			f.resume = 0 // a list is refused without a login, which a watch alone on its stream costs
		}
		if errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) {
			link.replace(stream) // a stream keeps the token it was opened with
		}
		return fmt.Errorf("watch %q: %w", f.span.key, err)
	}
	link.hear(stream, resp.Header)
	switch {
	case resp.Created:
		f.opened = time.Now()
		if v, _ := link.current(); v.down == nil {
			f.live()
		}
	case resp.IsProgressNotify():
		f.resume = max(f.resume, resp.Header.Revision+1)
	}
	for _, ev := range resp.Events {
		if ev.Kv.ModRevision < f.resume {
			continue
		}
		f.change(string(ev.Kv.Key), decodeEvent(ev))
		f.revision = max(f.revision, ev.Kv.ModRevision)
	}
	if len(resp.Events) > 0 {
		f.pace.arrived(time.Now())
		f.resume = f.revision + 1
		link.sawRevision(f.revision, f.history)
	}
	return nil
}

// change takes one key's change in.
func (f *feed) change(key string, now entry) {
	if f.lost != nil {
		old, pending := f.pending[key]
		if !pending {
			snap, _ := f.latest()
			old.instance = snap.Instance(key)
		}
		f.lost.note(key, old.instance, now, f.holdUntil())
	}
	f.pending[key] = now
}

// flush publishes what is pending.
func (f *feed) flush() {
	if len(f.pending) == 0 {
		return
	}
	began := time.Now()
	snap, _ := f.latest()
	snap = snap.next(f.pending, f.revision, f.room)
	f.setHeld(snap)
	f.publish(snap, nil)
	clear(f.pending)
	f.room = roomFor(len(snap.instances))
	f.pace.worked(began, time.Now())
}

// heed acts upon a changed verdict of the link.
func (f *feed) heed(w *feedWatch) error {
	v, changed := f.dir.link.current()
	w.changed = changed
	switch {
	case v.history != f.history:
		f.resume = 0
		return errNewHistory
	case v.stream != w.stream:
		return errStreamReplaced
	case v.down != nil:
		f.fail(v.down.Cause)
	case w.events != nil:
		f.live()
	}
	if v.audit != w.audit {
		w.audit = v.audit
		w.compare(f, asProof)
	}
	return nil
}

// heedComparison acts upon the outcome of a comparison with the store.
func (f *feed) heedComparison(w *feedWatch, err error) error {
	switch {
	case errors.Is(err, errDrifted):
		f.dir.stats.drifts.Add(1)
		f.dir.log.Warn("what was watched differs from what etcd holds: listing again", "prefix", f.span.key, "cause", err)
		f.resume = 0
		return err
	case err != nil && w.kind == asProof:
		f.fail(err)
	case err != nil:
		f.dir.log.Debug("cannot compare with etcd", "cause", err)
		if w.kind == asAudit {
			f.audited = earlier(f.audited, time.Now().Add(auditRetry))
		}
	default:
		if v, _ := f.dir.link.current(); v.down == nil && w.events != nil {
			f.live()
		}
	}
	return nil
}
