// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

var (
	// ErrStreamReplaced ends the watches of a stream that was given up. They can be opened anew at
	// once.
	ErrStreamReplaced = errors.New("watch stream was replaced")
	errWatchEnded     = errors.New("watch ended without a reason")
)

// Watches are the watches of one client. They share a gRPC stream, on which a leader is required:
// it is opened with the first watch, and closed once none is left and nobody holds it. A watch ends
// with its stream. It has no goroutine, and a request for one does not wait for the answer to another.
// The scenarios services, restart and burst of module bench show what that saves beside clientv3's
// watches.
type Watches struct {
	client     *clientv3.Client
	observe    func(generation uint64, header *pb.ResponseHeader)
	generation atomic.Uint64 // of the stream; grows, under mu, when one is replaced

	mu        sync.Mutex
	stream    *watchStream // nil: none is open
	notBefore time.Time    // when the next may be opened, after one that broke
	users     int          // watches that were not closed, and those who hold the stream
	held      bool         // by somebody, once
}

// NewWatches returns the watches of a client. Observe is called with the header of each message that
// does not end a watch, and the generation of its stream, before who watches is told. It is called under
// no lock, perhaps by several goroutines, which may be joined by who closes a watch: it must not, and
// nobody may close one under a lock that it takes.
func NewWatches(client *clientv3.Client, observe func(generation uint64, header *pb.ResponseHeader)) *Watches {
	return &Watches{client: client, observe: observe}
}

// Open watches a range from a revision on, 0 for from now on, and waits for nothing.
func (all *Watches) Open(keys KeyRange, revision int64) *Watch {
	w := &Watch{keys: keys, revision: revision, ready: make(chan struct{}, 1)}
	all.mu.Lock()
	defer all.mu.Unlock()
	all.openLocked()
	all.users++
	w.stream = all.stream
	w.stream.addLocked(w)
	return w
}

// Hold keeps a stream open when its last watch ends, until release, which joins it if nobody else
// needs it: a new one may cost a login. Where it does, the first is opened at once: what is called
// meanwhile shares the login, if the client is rollcall.NewClient's.
func (all *Watches) Hold() (release func()) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.users++; !all.held && LogsIn(all.client) {
		all.openLocked()
	}
	all.held = true
	return all.release
}

// openLocked opens a stream where none is open.
func (all *Watches) openLocked() {
	if all.stream == nil {
		all.stream = newWatchStream(all)
	}
}

func (all *Watches) release() {
	all.mu.Lock()
	all.users--
	s := all.stream
	last := all.users == 0 && s != nil
	if last {
		s.endLocked(nil)
	}
	all.mu.Unlock()
	if last {
		s.running.Wait()
	}
}

// Generation returns that of the stream, which a watch has that is opened next.
func (all *Watches) Generation() uint64 { return all.generation.Load() }

// Replace gives up the stream, if it is of that generation, and ends its watches.
func (all *Watches) Replace(generation uint64) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if !all.generation.CompareAndSwap(generation, generation+1) {
		return
	}
	if all.stream != nil {
		all.stream.endLocked(ErrStreamReplaced)
	}
}

// Watch is a watch of a range. Its methods are for one goroutine.
type Watch struct {
	stream   *watchStream
	keys     KeyRange
	revision int64
	ready    chan struct{} // capacity 1
	closed   bool

	// Guarded by Watches.mu.
	id     int64              // that was asked for, then the server's
	ended  bool               // nothing more comes
	cancel context.CancelFunc // where the client's own Watcher serves it

	// Guards queue. It is taken after Watches.mu, which thousands of watches would wait for: see the
	// scenario restart of module bench.
	mu    sync.Mutex
	queue []WatchResponse
}

// WatchResponse is a message of a watch.
type WatchResponse struct {
	Header  *pb.ResponseHeader
	Events  []*clientv3.Event // whole revisions
	Created bool              // the first: etcd watches
	Err     error             // why the watch has ended: the last
}

// IsProgress reports whether the message tells no more than that all events up to its revision were
// sent.
func (r *WatchResponse) IsProgress() bool { return !r.Created && r.Err == nil && len(r.Events) == 0 }

// Ready is woken, at least once, when there is something to take.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Take returns what has arrived since it was called last.
func (w *Watch) Take() []WatchResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue := w.queue
	w.queue = nil
	return queue
}

// First waits for the first message and returns it, with its Err.
func (w *Watch) First(ctx context.Context) (WatchResponse, error) {
	for {
		if arrived := w.Take(); len(arrived) > 0 {
			return arrived[0], arrived[0].Err
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			return WatchResponse{}, ctx.Err()
		}
	}
}

// Generation returns that of the watch's stream.
func (w *Watch) Generation() uint64 { return w.stream.generation }

// Close ends the watch, and joins the stream if it has ended, or nobody else needs it. Etcd is not
// waited for. Calling it again does nothing.
func (w *Watch) Close() {
	if w.closed {
		return
	}
	w.closed = true
	all := w.stream.all
	all.mu.Lock()
	w.stream.closeLocked(w)
	ended := w.stream.ended
	all.mu.Unlock()
	if ended {
		w.stream.running.Wait()
	}
	all.release()
}

func (w *Watch) push(resp WatchResponse) {
	w.mu.Lock()
	w.queue = append(w.queue, resp)
	w.mu.Unlock()
	backoff.Wake(w.ready)
}

// callWatch watches a range by the client's Watcher. It blocks until etcd answers or ctx ends.
func callWatch(ctx context.Context, client *clientv3.Client, r KeyRange, revision int64, more ...clientv3.OpOption) clientv3.WatchChan {
	return client.Watch(ctx, r.Key, r.options(append(more, clientv3.WithRev(revision),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())...)...)
}

// etcdWatcher is the type of clientv3's own Watchers.
var etcdWatcher = reflect.TypeOf(clientv3.NewWatchFromWatchClient(nil, nil))

// watchClient returns the service that a client's Watcher asks; nil where the Watcher does more, as one
// of a namespace does, which prefixes keys.
func watchClient(client *clientv3.Client) pb.WatchClient {
	if w, ok := client.Watcher.(interface{ WatchClient() pb.WatchClient }); ok {
		return w.WatchClient()
	}
	if conn := client.ActiveConnection(); conn != nil && reflect.TypeOf(client.Watcher) == etcdWatcher {
		return pb.NewWatchClient(conn)
	}
	return nil
}
