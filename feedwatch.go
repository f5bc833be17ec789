// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// feedWatch is one open watch of a feed, with what was known when it was opened.
type feedWatch struct {
	stream  uint64
	audit   uint64
	changed <-chan struct{} // the link's verdict changed

	opened   chan clientv3.WatchChan // the watch, once etcd has answered
	events   clientv3.WatchChan      // nil until then
	compared chan error              // outcome of a comparison under way

	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	comparing bool
	kind      comparison // of the comparison under way
}

// open starts a watch from f.resume on. Opening blocks until etcd answers, so it has
// a goroutine of its own.
func (f *feed) open(ctx context.Context) *feedWatch {
	v, changed := f.dir.link.current()
	w := &feedWatch{stream: v.stream, audit: v.audit, changed: changed,
		opened: make(chan clientv3.WatchChan, 1), compared: make(chan error, 1)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	wctx, revision := f.dir.link.context(w.ctx, v.stream), f.resume
	f.dir.stats.watches.Add(1)
	w.wg.Go(func() { w.opened <- etcdkv.Watch(wctx, f.dir.client, f.span, revision) })
	return w
}

func (w *feedWatch) close() {
	w.cancel()
	w.wg.Wait()
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
			flush.Reset(time.Until(f.pace.Due()))
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
			if !time.Now().Before(f.pace.Due()) && len(w.events) == 0 {
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
	if err := etcdkv.Typed(resp.Err()); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrPermissionDenied) {
			f.resume = 0 // a list is refused without a login, which a watch alone on its stream costs
		}
		if errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) {
			link.replace(stream) // a stream keeps the token it was opened with
		}
		return fmt.Errorf("watch %q: %w", f.span.Key, err)
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
		f.pace.Arrived(time.Now())
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
	f.pace.Worked(began, time.Now())
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
		f.dir.log.Warn("what was watched differs from what etcd holds: listing again", "prefix", f.span.Key, "cause", err)
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
