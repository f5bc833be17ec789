// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
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
	lastAsked time.Time
}

// open starts a watch from f.resume on. Opening blocks until etcd answers, so it has
// a goroutine of its own.
func (f *feed) open(ctx context.Context) *feedWatch {
	v, changed := f.dir.link.current()
	w := &feedWatch{stream: v.stream, audit: v.audit, changed: changed,
		opened: make(chan clientv3.WatchChan, 1), compared: make(chan error, 1)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	wctx, revision := f.dir.link.context(w.ctx, v.stream), f.resume
	w.wg.Go(func() { w.opened <- openWatch(wctx, f.dir.client, f.span, revision) })
	return w
}

func (w *feedWatch) close() {
	w.cancel()
	w.wg.Wait()
}

// compare asks etcd, linearizably, for the number of keys and their greatest
// ModRevision, and reports errDrifted where the snapshot differs, unless the store has
// moved on meanwhile and the watch will tell. One at a time, at most one in 10 s.
func (w *feedWatch) compare(f *feed) {
	if w.comparing || time.Since(w.lastAsked) < refreshEvery {
		return
	}
	w.comparing, w.lastAsked = true, time.Now()
	w.wg.Go(func() { w.compared <- f.compare(w.ctx) })
}

func (f *feed) compare(ctx context.Context) error {
	if err := sleep(ctx, jitter(answerGrace), nil); err != nil {
		return err
	}
	rev, term := f.dir.link.seen()
	resp, err := get(listContext(ctx, false), f.dir.client, f.span.key,
		f.span.options(append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)...)
	if err != nil {
		return fmt.Errorf("compare %q: %w", f.span.key, err)
	}
	f.dir.link.sawAnswer(resp.Header.Revision, resp.Header.RaftTerm, rev, term)
	var last int64
	if len(resp.Kvs) > 0 {
		last = resp.Kvs[0].ModRevision
	}
	snap, _ := f.latest()
	count, modRevision := snap.extent()
	if count != resp.Count || modRevision != last {
		return errDrifted
	}
	return nil
}
