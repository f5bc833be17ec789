// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// result is what a list has delivered.
type result struct {
	keys          []string
	answers, anew int
	parts         []int // keys in each
}

func (r *result) list(conn *fakeetcd.Conn, keys KeyRange) List {
	return List{Client: conn.Client, Range: keys, Answered: func() { r.answers++ }, Add: func(kvs []*mvccpb.KeyValue) {
		r.parts = append(r.parts, len(kvs))
		for _, kv := range kvs {
			r.keys = append(r.keys, string(kv.Key))
		}
	}}
}

func (r *result) restart() { *r = result{answers: r.answers, anew: r.anew + 1} }

// wantAll checks that the keys of fill arrived, in order, in so many parts.
func (r *result) wantAll(t *testing.T, prefix string, n, parts int) {
	t.Helper()
	if len(r.keys) != n || len(r.parts) != parts {
		t.Fatalf("got %d keys in parts of %v, want %d keys in %d parts", len(r.keys), r.parts, n, parts)
	}
	for i, key := range r.keys {
		if want := fmt.Sprintf("%s%06d", prefix, i); key != want {
			t.Fatalf("key %d: got %q, want %q", i, key, want)
		}
	}
}

func TestPages(t *testing.T) {
	for _, row := range []struct {
		name    string
		n, gets int
	}{
		{"nothing", 0, 1},
		{"one page", 7, 1},
		{"just one page", 5_000, 1},
		{"three pages", 10_001, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				store.Put("a", "before")
				fill(store, "p/", row.n)
				store.Put("q", "behind")
				store.SetTerm(9)
				want := store.Revision()
				// What is written while the pages arrive belongs to no page.
				conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
					if call.Revision > 0 {
						store.Put("p/999999", "late")
					}
					return nil
				})
				var got result
				at, err := got.list(conn, Prefix("p/")).Pages(t.Context(), got.restart)
				if err != nil || at != (Header{want, 9}) {
					t.Errorf("got %v, %v, want revision %d of term 9", at, err, want)
				}
				got.wantAll(t, "p/", row.n, row.gets)
				if got.answers != row.gets || got.anew != 0 || conn.Calls(fakeetcd.Get) != row.gets {
					t.Errorf("%d answers, %d restarts, %d calls; want %d, 0, %[4]d", got.answers, got.anew, conn.Calls(fakeetcd.Get), row.gets)
				}
			})
		})
	}
}

// Where compaction outruns the pages twice, the third list is one answer.
func TestPagesOutrunByCompaction(t *testing.T) {
	for times := 1; times <= 2; times++ {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			const n = pageSize + 10
			fill(store, "p/", n)
			left := times
			conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
				if call.Revision > 0 && left > 0 {
					left--
					return store.Compact(store.Put("other", ""))
				}
				return nil
			})
			var got result
			at, err := got.list(conn, Prefix("p/")).Pages(t.Context(), got.restart)
			if err != nil || at.Revision != store.Revision() {
				t.Errorf("got %v, %v, want revision %d", at, err, store.Revision())
			}
			got.wantAll(t, "p/", n, 3-times)
			if got.anew != times {
				t.Errorf("begun anew %d times, want %d", got.anew, times)
			}
		})
	}
}

func TestPagesFail(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", pageSize+1)
		conn.FailNext(fakeetcd.Get, nil, rpctypes.ErrPermissionDenied)
		var got result
		if at, err := got.list(conn, Prefix("p/")).Pages(t.Context(), got.restart); !errors.Is(err, rpctypes.ErrPermissionDenied) || at != (Header{}) {
			t.Errorf("got %v, %v, want the second page's error", at, err)
		}
		if got.anew != 0 {
			t.Error("begun anew after a refusal")
		}
	})
}

// A list without a leader is the member's own; any other is refused at once.
func TestListWithoutLeader(t *testing.T) {
	for _, stream := range []bool{false, true} {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			fill(store, "p/", 3)
			want := store.Revision()
			conn.StreamRanges(10)
			conn.LoseLeader()
			store.Put("p/999999", "unknown to the member")
			read := func(l List) (Header, error) {
				if stream {
					return l.Stream(t.Context())
				}
				return l.Pages(t.Context(), func() {})
			}
			var got result
			list := got.list(conn, Prefix("p/"))
			began := time.Now()
			if _, err := read(list); !errors.Is(err, rpctypes.ErrNoLeader) || time.Since(began) > 0 {
				t.Errorf("linearizable, stream %t: got %v after %v", stream, err, time.Since(began))
			}
			list.Serializable = true
			if at, err := read(list); err != nil || at.Revision != want {
				t.Errorf("serializable, stream %t: got %v, %v, want revision %d", stream, at, err, want)
			}
			got.wantAll(t, "p/", 3, 1)
		})
	}
}

func TestStream(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", 25)
		store.SetTerm(9)
		conn.StreamRanges(10)
		var got result
		at, err := got.list(conn, Prefix("p/")).Stream(t.Context())
		if err != nil || at != (Header{store.Revision(), 9}) {
			t.Errorf("got %v, %v, want revision %d of term 9", at, err, store.Revision())
		}
		got.wantAll(t, "p/", 25, 3)
		if got.answers != 3 {
			t.Errorf("%d answers, want 3", got.answers)
		}
	})
}

func TestStreamFails(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault func(conn *fakeetcd.Conn)
		want  func(error) bool
		after time.Duration
	}{
		{"before 3.7", func(c *fakeetcd.Conn) { c.StreamRanges(0) },
			func(err error) bool { return status.Code(err) == codes.Unimplemented }, 0},
		{"refused", func(c *fakeetcd.Conn) { c.Fail(fakeetcd.GetStream, rpctypes.ErrPermissionDenied) },
			func(err error) bool { return errors.Is(err, rpctypes.ErrPermissionDenied) }, 0},
		{"torn", func(c *fakeetcd.Conn) { c.TearRangeStream(2, rpctypes.ErrNoLeader) },
			func(err error) bool { return errors.Is(err, rpctypes.ErrNoLeader) }, 0},
		{"silent after two parts", func(c *fakeetcd.Conn) { c.TearRangeStream(2, nil) },
			func(err error) bool { return errors.Is(err, ErrNoAnswer) }, CallTimeout},
		{"silent at once", (*fakeetcd.Conn).Cut,
			func(err error) bool { return errors.Is(err, ErrNoAnswer) }, CallTimeout},
		{"closed client", (*fakeetcd.Conn).Close, func(err error) bool { return errors.Is(err, ErrClientClosed) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				fill(store, "p/", 25)
				conn.StreamRanges(10)
				row.fault(conn)
				var got result
				began := time.Now()
				at, err := got.list(conn, Prefix("p/")).Stream(t.Context())
				if !row.want(err) || at != (Header{}) || time.Since(began) != row.after {
					t.Errorf("got %v, %v after %v, want an error after %v", at, err, time.Since(began), row.after)
				}
			})
		})
	}
}

// A stream that the caller gives up ends with the caller's reason, not with etcd's silence.
func TestStreamOfACancelledCaller(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", 25)
		conn.StreamRanges(10)
		conn.TearRangeStream(1, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got result
		if _, err := got.list(conn, Prefix("p/")).Stream(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoAnswer) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

// Only the time between two parts is bounded, not that of the whole list.
func TestSlowStream(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", 25)
		conn.StreamRanges(5)
		var got result
		list := got.list(conn, Prefix("p/"))
		add := list.Add
		list.Add = func(kvs []*mvccpb.KeyValue) {
			time.Sleep(CallTimeout - time.Millisecond)
			add(kvs)
		}
		if _, err := list.Stream(t.Context()); err != nil {
			t.Error(err)
		}
		got.wantAll(t, "p/", 25, 5)
	})
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		conn.StreamRanges(1000)
		fill(store, "p/", n)
		list := List{Client: conn.Client, Range: Prefix("p/"), Add: func([]*mvccpb.KeyValue) {}, Answered: func() {}}
		b.Run(fmt.Sprintf("pages/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := list.Pages(b.Context(), func() {}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("stream/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := list.Stream(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A watch begins with a created notice, tells of its range from the revision on, and asks
// for progress notices and fragments.
func TestWatch(t *testing.T) {
	for _, row := range []struct {
		name string
		keys KeyRange
		want []string
	}{
		{"prefix", Prefix("a/"), []string{"a/1", "a/2"}},
		{"single key", SingleKey("a/1"), []string{"a/1"}},
		{"whole store", Prefix(""), []string{"a", "a/1", "b", "a/2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
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
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				watch := Watch(ctx, conn.Client, row.keys, from)
				if resp := <-watch; !resp.Created || len(resp.Events) > 0 {
					t.Fatalf("first message: %v, want a created notice", resp)
				}
				store.Put("a/2", "")
				var got []string
				for len(got) < len(row.want) {
					for _, ev := range (<-watch).Events {
						got = append(got, string(ev.Kv.Key))
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(row.want) {
					t.Errorf("got %v, want %v", got, row.want)
				}
			})
		})
	}
}

// A watch from revision 0 tells of what happens from now on.
func TestWatchFromNow(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		store.Put("a", "before")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch := Watch(ctx, conn.Client, SingleKey("a"), 0)
		<-watch
		want := store.Put("a", "after")
		if resp := <-watch; len(resp.Events) != 1 || resp.Events[0].Kv.ModRevision != want {
			t.Errorf("got %v, want the event of revision %d", resp.Events, want)
		}
	})
}
