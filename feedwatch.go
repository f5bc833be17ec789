// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"sync"

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
	w.wg.Go(func() { w.opened <- openWatch(wctx, f.dir.client, f.span, revision) })
	return w
}

func (w *feedWatch) close() {
	w.cancel()
	w.wg.Wait()
}
