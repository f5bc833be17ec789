// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// ignore observes nothing.
func ignore(uint64, *etcdserverpb.ResponseHeader) {}

// watching runs a test on watches by a stream, and on watches by a client's own Watcher.
func watching(t *testing.T, test func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches)) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own Watcher %v", own), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				if own {
					conn.Client.Watcher = struct{ clientv3.Watcher }{conn.Client.Watcher}
				}
				all := NewWatches(conn.Client, ignore)
				test(t, store, conn, all)
				synctest.Wait()
				if all.stream != nil || conn.Watches() > 0 {
					t.Errorf("after the last watch: stream %v, %d watches", all.stream, conn.Watches())
				}
			})
		})
	}
}

// tell returns what a watch has taken by now.
func tell(w *Watch) string {
	synctest.Wait()
	var said []string
	for _, r := range w.Take() {
		switch {
		case r.Err != nil:
			said = append(said, r.Err.Error())
		case r.Created:
			said = append(said, "created")
		case r.IsProgress():
			said = append(said, "progress")
		}
		for _, ev := range r.Events {
			said = append(said, fmt.Sprintf("%s@%d", ev.Kv.Key, ev.Kv.ModRevision))
		}
	}
	return strings.Join(said, " ")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// A watch begins with a created notice, tells of its range from the revision on, and asks
// for progress notices and fragments.
func TestWatch(t *testing.T) {
	for _, row := range []struct {
		name string
		keys KeyRange
		want string
	}{
		{"prefix", Prefix("a/"), "created a/1@4 a/2@6"},
		{"single key", SingleKey("a/1"), "created a/1@4"},
		{"whole store", Prefix(""), "created a@3 a/1@4 b@5 a/2@6"},
	} {
		t.Run(row.name, func(t *testing.T) {
			watching(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches) {
				store.Put("a/1", "before")
				conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
					if r, ok := call.Request.(*etcdserverpb.WatchCreateRequest); ok && (!r.ProgressNotify || !r.Fragment) {
						t.Errorf("request: %v", r)
					}
					return nil
				})
				from := store.Revision() + 1
				for _, key := range []string{"a", "a/1", "b"} {
					store.Put(key, "")
				}
				w := all.Open(row.keys, from)
				defer w.Close()
				synctest.Wait()
				store.Put("a/2", "")
				expect(t, "told", tell(w), row.want)
				store.Put("a/1", "")
				expect(t, "then", tell(w), "a/1@7")
			})
		})
	}
}

// A watch from revision 0 tells of what happens from now on.
func TestWatchFromNow(t *testing.T) {
	watching(t, func(t *testing.T, store *fakeetcd.Store, _ *fakeetcd.Conn, all *Watches) {
		store.Put("a", "before")
		w := all.Open(SingleKey("a"), 0)
		defer w.Close()
		if resp, err := w.First(t.Context()); err != nil || !resp.Created || resp.Header.Revision != 2 {
			t.Errorf("first %+v, %v", resp, err)
		}
		store.Put("a", "after")
		expect(t, "told", tell(w), "a@3")
	})
}

// Watches share a stream. What ends one of them ends no other.
func TestWatchesShareAStream(t *testing.T) {
	watching(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches) {
		store.Put("a", "")
		store.Put("a", "")
		if err := store.Compact(3); err != nil {
			t.Fatal(err)
		}
		var ws []*Watch
		for _, key := range []string{"a", "b", "c"} {
			ws = append(ws, all.Open(SingleKey(key), 0))
		}
		old := all.Open(SingleKey("a"), 2)
		for _, w := range ws {
			expect(t, "opened", tell(w), "created")
		}
		expect(t, "of an old revision", tell(old), "created "+rpctypes.ErrCompacted.Error())
		old.Close()
		ws[1].Close()
		ws[1].Close() // does nothing
		synctest.Wait()
		if n, streams := conn.Watches(), conn.Calls(fakeetcd.WatchStream); n != 2 || streams != 1 {
			t.Errorf("%d watches, %d streams, want 2 and 1", n, streams)
		}
		for _, key := range []string{"a", "b", "c"} {
			store.Put(key, "")
		}
		expect(t, "a", tell(ws[0]), "a@4")
		expect(t, "c", tell(ws[2]), "c@6")
		ws[0].Close()
		ws[2].Close()
	})
}

// A watch that is closed before etcd has answered is ended there.
func TestWatchClosedEarly(t *testing.T) {
	watching(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches) {
		stays := all.Open(SingleKey("a"), 0)
		defer stays.Close()
		for range 3 {
			all.Open(SingleKey("b"), 0).Close()
		}
		synctest.Wait()
		conn.Freeze()
		late := all.Open(SingleKey("b"), 0)
		synctest.Wait()
		late.Close()
		conn.Thaw()
		synctest.Wait()
		store.Put("b", "") // clientv3 waits for it
		synctest.Wait()
		if n := conn.Watches(); n != 1 {
			t.Errorf("%d watches, want the one that is open", n)
		}
		expect(t, "told", tell(stays), "created")
	})
}

// The watches of a stream that breaks, or is replaced, end; they can be opened anew.
func TestWatchStreamEnds(t *testing.T) {
	watching(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches) {
		ws := []*Watch{all.Open(SingleKey("a"), 0), all.Open(SingleKey("b"), 0)}
		for _, w := range ws {
			expect(t, "opened", tell(w), "created")
		}
		first := ws[0].Generation()
		conn.Freeze()
		all.Replace(first + 1) // not this one
		expect(t, "another generation", tell(ws[0]), "")
		all.Replace(first)
		for _, w := range ws {
			expect(t, "replaced", tell(w), ErrStreamReplaced.Error())
			w.Close()
		}
		conn.Thaw()
		again := all.Open(SingleKey("a"), 0)
		if got := again.Generation(); got != first+1 {
			t.Errorf("generation %d after %d", got, first)
		}
		expect(t, "opened again", tell(again), "created")
		conn.LoseLeader()
		expect(t, "without a leader", tell(again), rpctypes.ErrNoLeader.Error())
		again.Close()
		conn.FindLeader()
		time.Sleep(reopenPause)
		last := all.Open(SingleKey("a"), 0)
		expect(t, "with one", tell(last), "created")
		_ = conn.Client.Close()
		synctest.Wait()
		if got := last.Take(); len(got) != 1 || got[0].Err == nil {
			t.Errorf("the client was closed: %+v", got)
		}
		last.Close()
	})
}

// The headers of messages are observed, before who watches hears of them, but for those that end a watch.
func TestWatchesObserve(t *testing.T) {
	watching(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches) {
		conn.Freeze()
		w := all.Open(SingleKey("a"), 0)
		var observed []string
		all.observe = func(generation uint64, header *etcdserverpb.ResponseHeader) {
			observed = append(observed, fmt.Sprintf("%d@%d", generation, header.Revision))
			if len(w.Take()) > 0 {
				t.Error("told before")
			}
		}
		conn.Thaw()
		expect(t, "opened", tell(w), "created")
		for _, want := range []string{"a@2", "a@3"} {
			store.Put("a", "")
			expect(t, "changed", tell(w), want)
		}
		w.Close()
		store.Compact(3)
		refused := all.Open(SingleKey("a"), 1)
		expect(t, "compacted", tell(refused), "created "+rpctypes.ErrCompacted.Error())
		refused.Close()
		expect(t, "observed", strings.Join(observed, " "), "0@1 0@2 0@3 0@3")
	})
}

// Streams that bring nothing are opened with pauses, however many watches ask for one.
func TestWatchStreamsFailingToOpen(t *testing.T) {
	bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
		all := NewWatches(conn.Client, ignore)
		conn.Fail(fakeetcd.WatchStream, rpctypes.ErrGRPCUnhealthy)
		const seconds = 5
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		var others sync.WaitGroup
		for i := range 50 {
			others.Go(func() {
				for ctx.Err() == nil {
					w := all.Open(SingleKey("a"), 0)
					if _, err := w.First(ctx); err == nil {
						t.Error("no error")
					}
					w.Close()
					time.Sleep(time.Duration(i+1) * time.Millisecond)
				}
			})
		}
		others.Wait()
		if n, most := conn.Calls(fakeetcd.WatchStream), int(seconds*time.Second/reopenPause)+2; n > most {
			t.Errorf("%d streams in %d s, want %d at most", n, seconds, most)
		}
		time.Sleep(reopenPause)
		conn.Fail(fakeetcd.WatchStream, nil)
		w := all.Open(SingleKey("a"), 0)
		defer w.Close()
		expect(t, "opened without a pause", tell(w), "created")
	})
}

// A refused watch says why, and First gives up with its context.
func TestWatchRefused(t *testing.T) {
	watching(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn, all *Watches) {
		conn.FailNext(fakeetcd.Watch, rpctypes.ErrPermissionDenied)
		w := all.Open(SingleKey("a"), 0)
		if _, err := w.First(t.Context()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("refused: %v", err)
		}
		w.Close()
		if watchClient(conn.Client) == nil {
			_ = conn.Client.Watcher.Close() // clientv3's may have tried again, and leave that watch behind
			return
		}
		conn.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w = all.Open(SingleKey("a"), 0)
		if _, err := w.First(ctx); err == nil {
			t.Error("no error while the connection is cut")
		}
		w.Close()
		conn.Mend()
	})
}

// server answers requests for watches as a test says.
type server struct {
	grpc.ClientStream
	ctx  context.Context
	sent chan *etcdserverpb.WatchRequest
	says chan *etcdserverpb.WatchResponse
}

func (s *server) Watch(ctx context.Context, _ ...grpc.CallOption) (etcdserverpb.Watch_WatchClient, error) {
	s.ctx = ctx
	return s, nil
}

func (s *server) Send(r *etcdserverpb.WatchRequest) error {
	s.sent <- r
	return nil
}

func (s *server) Recv() (*etcdserverpb.WatchResponse, error) {
	select {
	case r := <-s.says:
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

type serverWatcher struct {
	clientv3.Watcher
	*server
}

func (w serverWatcher) WatchClient() etcdserverpb.WatchClient { return w.server }
func (w serverWatcher) Watch(context.Context, string, ...clientv3.OpOption) clientv3.WatchChan {
	panic("not by the Watcher")
}

// onServer runs a test with watches on a server of its own, and what asks it.
func onServer(t *testing.T, test func(all *Watches, s *server, sent func() string)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s := &server{sent: make(chan *etcdserverpb.WatchRequest, 100), says: make(chan *etcdserverpb.WatchResponse)}
		client := clientv3.NewCtxClient(ctx)
		client.Watcher = serverWatcher{nil, s}
		test(NewWatches(client, ignore), s, func() string {
			synctest.Wait()
			var said []string
			for len(s.sent) > 0 {
				r := <-s.sent
				if create := r.GetCreateRequest(); create != nil {
					said = append(said, string(create.Key))
				} else {
					said = append(said, fmt.Sprintf("-%d", r.GetCancelRequest().GetWatchId()))
				}
			}
			return strings.Join(said, " ")
		})
	})
}

// The first answer shows whether the server gives watches the ids that they ask for. Where it
// does, requests are sent at once; behind a proxy each waits for the answer to the one before.
func TestWatchRequestsInOrder(t *testing.T) {
	for _, proxy := range []bool{false, true} {
		onServer(t, func(all *Watches, s *server, sent func() string) {
			var ws []*Watch
			for _, key := range []string{"a", "b", "c", "d"} {
				ws = append(ws, all.Open(SingleKey(key), 0))
			}
			expect(t, "at first", sent(), "a")
			id := func(i int64) int64 {
				if proxy {
					return i - 1
				}
				return i
			}
			s.says <- &etcdserverpb.WatchResponse{WatchId: id(1), Created: true}
			if !proxy {
				expect(t, "after the first answer", sent(), "b c d")
				ws[2].Close() // its answer is awaited
				s.says <- &etcdserverpb.WatchResponse{WatchId: id(2), Created: true}
				s.says <- &etcdserverpb.WatchResponse{WatchId: id(3), Created: true}
				expect(t, "the closed one's answer", sent(), "-3")
				s.says <- &etcdserverpb.WatchResponse{WatchId: -1, Created: true, Canceled: true, CancelReason: rpctypes.ErrGRPCPermissionDenied.Error()}
			} else {
				expect(t, "after the first answer", sent(), "b")
				ws[2].Close() // it was not asked for yet
				s.says <- &etcdserverpb.WatchResponse{WatchId: id(2), Created: true}
				expect(t, "after the second", sent(), "d")
				s.says <- &etcdserverpb.WatchResponse{WatchId: id(3), Created: true}
			}
			want := []string{"created", "created", "", "created"}
			if !proxy {
				want[3] = rpctypes.ErrPermissionDenied.Error()
			}
			for i, w := range ws {
				expect(t, fmt.Sprint("watch ", i), tell(w), want[i])
				w.Close()
			}
		})
	}
}

// The fragments of a response are one.
func TestWatchFragments(t *testing.T) {
	onServer(t, func(all *Watches, s *server, sent func() string) {
		w := all.Open(Prefix("a"), 0)
		sent()
		s.says <- &etcdserverpb.WatchResponse{WatchId: 1, Created: true}
		expect(t, "opened", tell(w), "created")
		event := func(key string) []*clientv3.Event {
			return []*clientv3.Event{{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: 7}}}
		}
		s.says <- &etcdserverpb.WatchResponse{WatchId: 1, Events: event("a1"), Fragment: true}
		s.says <- &etcdserverpb.WatchResponse{WatchId: 1, Events: event("a2"), Fragment: true}
		expect(t, "in the middle", tell(w), "")
		s.says <- &etcdserverpb.WatchResponse{WatchId: 1, Events: event("a3")}
		synctest.Wait()
		got := w.Take()
		if len(got) != 1 || !slices.EqualFunc(got[0].Events, []string{"a1", "a2", "a3"}, func(ev *clientv3.Event, key string) bool { return string(ev.Kv.Key) == key }) {
			t.Errorf("got %+v, want one message", got)
		}
		s.says <- &etcdserverpb.WatchResponse{WatchId: 1, Events: event("a4"), Fragment: true}
		s.says <- &etcdserverpb.WatchResponse{WatchId: 1, Canceled: true, CompactRevision: 9}
		expect(t, "ended in the middle", tell(w), rpctypes.ErrCompacted.Error())
		// Else the proxy would have the next watch of the range join this one.
		expect(t, "the compacted watch is dropped", sent(), "-1")
		w.Close()
	})
}

// A refusal is etcd's own error, whether a member gave the reason as a status or a proxy as text.
func TestWatchRefusals(t *testing.T) {
	for _, reason := range []string{rpctypes.ErrGRPCPermissionDenied.Error(), rpctypes.ErrPermissionDenied.Error()} {
		onServer(t, func(all *Watches, s *server, sent func() string) {
			w := all.Open(SingleKey("a"), 0)
			defer w.Close()
			sent()
			s.says <- &etcdserverpb.WatchResponse{WatchId: -1, Created: true, Canceled: true, CancelReason: reason}
			if _, err := w.First(context.Background()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("reason %q: %#v", reason, err)
			}
		})
	}
}

// Where a stream costs a login it is opened before there is a watch, which takes it then.
func TestHoldLogsIn(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		t.Run("password "+password, func(t *testing.T) {
			bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
				conn.Client.Username, conn.Client.Password = "user", password
				all := NewWatches(conn.Client, ignore)
				release := all.Hold()
				synctest.Wait()
				held := all.stream
				if (held != nil) != (password != "") {
					t.Errorf("held with stream %v", held)
				}
				w := all.Open(SingleKey("a"), 0)
				if got := tell(w); got != "created" {
					t.Errorf("watch: %s", got)
				}
				if held != nil && w.stream != held {
					t.Error("the watch has another stream")
				}
				w.Close()
				release()
				if all.stream != nil {
					t.Errorf("stream %v after release", all.stream)
				}
				defer all.Hold()() // by then the client has a token, or will get one with its next watch
				if all.stream != nil {
					t.Errorf("held again with stream %v", all.stream)
				}
			})
		})
	}
}
