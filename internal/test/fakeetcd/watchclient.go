// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// maxBatch is how many revisions etcd puts into one response to a watch that lags.
const maxBatch = 1000

// watchClient is etcdserverpb.WatchClient on a Conn.
type watchClient struct{ c *Conn }

// fakeWatcher is a Watcher of clientv3 that tells which service it asks.
type fakeWatcher struct {
	clientv3.Watcher
	remote watchClient
}

// WatchClient returns the service.
func (w fakeWatcher) WatchClient() etcdserverpb.WatchClient { return w.remote }

// watchStream is a stream with its watches.
type watchStream struct {
	*stream[etcdserverpb.WatchRequest, etcdserverpb.WatchResponse]
	conn     *Conn
	watchers []*watcher // guarded by store.mu; in the order of their making
	made     int64      // guarded by store.mu
}

// watcher is one watch at the server.
type watcher struct {
	id       int64
	key, end []byte
	start    int64 // as asked for
	next     int64 // Invariant: nothing below it is still to be sent
	prevKV   bool
	noPut    bool
	noDelete bool
}

func (w watchClient) Watch(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[etcdserverpb.WatchRequest, etcdserverpb.WatchResponse], error) {
	if err := w.c.admit(ctx, Call{Method: WatchStream}); err != nil {
		return nil, err
	}
	ws := &watchStream{
		stream: newStream[etcdserverpb.WatchRequest, etcdserverpb.WatchResponse](ctx),
		conn:   w.c,
	}
	w.c.openStream(ws.pipe, ws)
	go ws.serve()
	return ws, nil
}

// openStream registers the stream, or ends it at once if it has no leader or the connection is cut.
func (c *Conn) openStream(p *pipe, ws *watchStream) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	switch {
	case c.cut != nil:
		p.fail(errBroken)
	case c.member != nil && p.needLeader:
		p.fail(rpctypes.ErrGRPCNoLeader)
	default:
		c.streams[p] = struct{}{}
		if ws != nil {
			c.watches[ws] = struct{}{}
		}
	}
}

func (c *Conn) closeStream(p *pipe, ws *watchStream) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	delete(c.streams, p)
	delete(c.watches, ws)
}

func (ws *watchStream) serve() {
	defer ws.conn.closeStream(ws.pipe, ws)
	for {
		req := ws.next()
		switch {
		case req == nil:
			return
		case req.GetCreateRequest() != nil:
			ws.create(req.GetCreateRequest())
		case req.GetCancelRequest() != nil:
			ws.cancel(req.GetCancelRequest().WatchId)
		case req.GetProgressRequest() != nil:
			ws.progress(req.GetProgressRequest())
		}
	}
}

func (ws *watchStream) create(r *etcdserverpb.WatchCreateRequest) {
	call := Call{Method: Watch, Key: string(r.Key), End: string(r.RangeEnd), Revision: r.StartRevision, Request: r}
	err := ws.conn.note(ws.ctx, call)
	if err == nil && r.StartRevision < 0 {
		err = rpctypes.ErrCompacted
	}
	ws.conn.store.mu.Lock()
	defer ws.conn.store.mu.Unlock()
	if _, open := ws.conn.watches[ws]; !open {
		return
	}
	view := ws.conn.viewLocked()
	header := ws.conn.headerLocked(view.revision)
	if err != nil {
		ws.answer(&etcdserverpb.WatchResponse{
			Header: header, WatchId: clientv3.InvalidWatchID, Created: true, Canceled: true, CancelReason: err.Error(),
		})
		return
	}
	id := r.WatchId
	if id == 0 {
		id = ws.made
		ws.made++
	}
	w := newWatcher(r, id, view.revision)
	ws.watchers = append(ws.watchers, w)
	ws.answer(&etcdserverpb.WatchResponse{Header: header, WatchId: w.id, Created: true})
	ws.catchUpLocked(view)
}

func newWatcher(r *etcdserverpb.WatchCreateRequest, id, latest int64) *watcher {
	w := &watcher{
		id:       id,
		key:      slices.Clone(r.Key),
		end:      slices.Clone(r.RangeEnd),
		start:    r.StartRevision,
		next:     r.StartRevision,
		prevKV:   r.PrevKv,
		noPut:    slices.Contains(r.Filters, etcdserverpb.WatchCreateRequest_NOPUT),
		noDelete: slices.Contains(r.Filters, etcdserverpb.WatchCreateRequest_NODELETE),
	}
	if len(w.key) == 0 {
		w.key = []byte{0} // the smallest
	}
	if w.next == 0 {
		w.next = latest + 1
	}
	return w
}

func (ws *watchStream) cancel(id int64) {
	ws.conn.store.mu.Lock()
	defer ws.conn.store.mu.Unlock()
	before := len(ws.watchers)
	ws.watchers = slices.DeleteFunc(ws.watchers, func(w *watcher) bool { return w.id == id })
	if len(ws.watchers) < before {
		ws.cancelledLocked(id)
	}
}

func (ws *watchStream) cancelAllLocked() {
	for _, w := range ws.watchers {
		ws.cancelledLocked(w.id)
	}
	ws.watchers = nil
}

func (ws *watchStream) cancelledLocked(id int64) {
	header := ws.conn.headerLocked(ws.conn.viewLocked().revision)
	ws.answer(&etcdserverpb.WatchResponse{Header: header, WatchId: id, Canceled: true})
}

// progress answers for all watches of the stream, but not while one of them waits for a future
// revision.
func (ws *watchStream) progress(r *etcdserverpb.WatchProgressRequest) {
	if ws.conn.note(ws.ctx, Call{Method: Progress, Request: r}) != nil {
		return
	}
	ws.conn.store.mu.Lock()
	defer ws.conn.store.mu.Unlock()
	latest := ws.conn.viewLocked().revision
	waits := func(w *watcher) bool { return w.start > latest }
	if len(ws.watchers) == 0 || slices.ContainsFunc(ws.watchers, waits) {
		return
	}
	ws.answer(&etcdserverpb.WatchResponse{Header: ws.conn.headerLocked(latest), WatchId: clientv3.InvalidWatchID})
}

// catchUpLocked sends every watch the events that it has not received.
func (c *Conn) catchUpLocked() {
	view := c.viewLocked()
	for ws := range c.watches {
		ws.catchUpLocked(view)
	}
}

func (ws *watchStream) catchUpLocked(view *state) {
	ws.watchers = slices.DeleteFunc(ws.watchers, func(w *watcher) bool {
		if w.next < view.compacted {
			ws.answer(&etcdserverpb.WatchResponse{
				Header: ws.conn.headerLocked(0), WatchId: w.id, Canceled: true, CompactRevision: view.compacted,
			})
			return true
		}
		ws.sendLocked(w, view)
		return false
	})
}

// sendLocked sends a watch the events that it has not received. As in etcd, a response has at most
// maxBatch revisions.
func (ws *watchStream) sendLocked(w *watcher, view *state) {
	var batch []*mvccpb.Event
	revisions := 0
	flush := func() {
		if len(batch) > 0 {
			ws.answer(&etcdserverpb.WatchResponse{
				Header: ws.conn.headerLocked(view.revision), WatchId: w.id, Events: batch,
			})
		}
		batch, revisions = nil, 0
	}
	for _, c := range view.since(w.next) {
		if events := w.pick(c, view.compacted); len(events) > 0 {
			batch = append(batch, events...)
			revisions++
		}
		if revisions == maxBatch {
			flush()
		}
	}
	flush()
	w.next = max(w.next, view.revision+1)
}

// pick returns copies of the events for the watch.
func (w *watcher) pick(c commit, compacted int64) []*mvccpb.Event {
	var out []*mvccpb.Event
	for _, e := range c.events {
		if !inRange(string(e.Kv.Key), w.key, w.end) ||
			w.noPut && e.Type == mvccpb.Event_PUT || w.noDelete && e.Type == mvccpb.Event_DELETE {
			continue
		}
		picked := &mvccpb.Event{Type: e.Type, Kv: cloneKV(e.Kv)}
		if w.prevKV && c.revision-1 >= compacted {
			picked.PrevKv = cloneKV(e.PrevKv)
		}
		out = append(out, picked)
	}
	return out
}
