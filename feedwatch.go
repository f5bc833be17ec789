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
	auditing  bool // the comparison under way is an audit
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

// compare begins a comparison with etcd, one at a time and at most one in 10 s. An audit
// is one that must succeed: behind a proxy nothing else proves that etcd is there.
func (w *feedWatch) compare(f *feed, audit bool) {
	if w.comparing || time.Since(f.compared) < refreshEvery {
		return
	}
	w.comparing, w.auditing, f.compared = true, audit, time.Now()
	w.wg.Go(func() { w.compared <- f.compare(w.ctx) })
}

// compare asks etcd, linearizably, for the number of keys and their greatest ModRevision.
// It returns errDrifted where the snapshot differs and goes on to differ, unchanged, a
// second later: a difference alone may be an event that is still on its way.
func (f *feed) compare(ctx context.Context) error {
	const grace = time.Second
	if err := sleep(ctx, jitter(grace), nil); err != nil {
		return err
	}
	first, same, err := f.agrees(ctx)
	if same || err != nil {
		return err
	}
	if err := sleep(ctx, grace, nil); err != nil {
		return err
	}
	again, same, err := f.agrees(ctx)
	if err == nil && !same && first == again {
		return errDrifted
	}
	return err
}

// agrees says whether etcd's answer is that of the snapshot, which it returns.
func (f *feed) agrees(ctx context.Context) (*Snapshot, bool, error) {
	before := f.dir.link.seen()
	resp, err := get(listContext(ctx, false), f.dir.client, f.span.key,
		f.span.options(append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)...)
	if err != nil {
		return nil, false, fmt.Errorf("compare %q: %w", f.span.key, err)
	}
	f.dir.link.sawAnswer(resp.Header.Revision, resp.Header.RaftTerm, before)
	var last int64
	if len(resp.Kvs) > 0 {
		last = resp.Kvs[0].ModRevision
	}
	snap, _ := f.latest()
	count, modRevision := snap.extent()
	return snap, count == resp.Count && modRevision == last, nil
}
