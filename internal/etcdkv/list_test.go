// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// result is what a list has delivered.
type result struct {
	keys          []string
	answers, anew int
	parts         []int // keys in each
}

func (r *result) list(conn *fakeetcd.Conn, paged bool) List {
	l := List{Client: conn.Client, Range: Prefix("p/"), Paged: new(atomic.Bool), Restart: r.restart, Answered: func() { r.answers++ },
		Add: func(kvs []*mvccpb.KeyValue) {
			r.parts = append(r.parts, len(kvs))
			for _, kv := range kvs {
				r.keys = append(r.keys, string(kv.Key))
			}
		}}
	l.Paged.Store(paged)
	return l
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
				at, err := got.list(conn, true).Read(t.Context(), nil)
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
			at, err := got.list(conn, true).Read(t.Context(), nil)
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
		if at, err := got.list(conn, true).Read(t.Context(), nil); !errors.Is(err, rpctypes.ErrPermissionDenied) || at != (Header{}) {
			t.Errorf("got %v, %v, want the second page's error", at, err)
		}
		if got.anew != 0 {
			t.Error("begun anew after a refusal")
		}
	})
}

// A list without a leader is the member's own; any other is refused at once.
func TestListWithoutLeader(t *testing.T) {
	for _, n := range []int{3, firstPage + 3} {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			fill(store, "p/", n)
			want := store.Revision()
			conn.StreamRanges(10)
			conn.LoseLeader()
			store.Put("p/999999", "unknown to the member")
			var got result
			list := got.list(conn, false)
			began := time.Now()
			if _, err := list.Read(t.Context(), nil); !errors.Is(err, rpctypes.ErrNoLeader) || time.Since(began) > 0 {
				t.Errorf("linearizable, %d keys: got %v after %v", n, err, time.Since(began))
			}
			list.Serializable = true
			if at, err := list.Read(t.Context(), nil); err != nil || at.Revision != want {
				t.Errorf("serializable, %d keys: got %v, %v, want revision %d", n, at, err, want)
			}
			got.wantAll(t, "p/", n, n/firstPage+1)
		})
	}
}

// A list is one answer where that has all, else a page and a stream of the rest, at one revision.
func TestStream(t *testing.T) {
	for _, row := range []struct{ n, parts, streams int }{{0, 1, 0}, {7, 1, 0}, {firstPage, 1, 0}, {firstPage + 1, 2, 1}, {firstPage + 25, 4, 1}} {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			fill(store, "p/", row.n)
			store.SetTerm(9)
			conn.StreamRanges(10)
			want := store.Revision()
			conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
				if call.Method == fakeetcd.GetStream {
					store.Put("p/999999", "late")
				}
				return nil
			})
			var got result
			at, err := got.list(conn, false).Read(t.Context(), nil)
			if err != nil || at != (Header{want, 9}) {
				t.Errorf("%d keys: got %v, %v, want revision %d of term 9", row.n, at, err, want)
			}
			got.wantAll(t, "p/", row.n, row.parts)
			if gets, streams := conn.Calls(fakeetcd.Get), conn.Calls(fakeetcd.GetStream); got.answers != row.parts || gets != 1 || streams != row.streams {
				t.Errorf("%d keys: %d answers, %d gets, %d streams", row.n, got.answers, gets, streams)
			}
		})
	}
}

// A first page that was asked for with others is not used again where compaction has outrun it.
func TestFirstPageOutrun(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = firstPage + 25
		fill(store, "p/", n)
		fill(store, "q/", 3)
		conn.StreamRanges(1000)
		pages, err := FirstPages(t.Context(), conn.Client, []KeyRange{Prefix("q/"), Prefix("p/")})
		if err != nil || len(pages) != 2 || !pages[0].Whole() || pages[1].Whole() {
			t.Fatalf("got %v, %v", pages, err)
		}
		if err := store.Compact(store.Put("other", "")); err != nil {
			t.Fatal(err)
		}
		var got result
		at, err := got.list(conn, false).Read(t.Context(), pages[1])
		if err != nil || at.Revision != store.Revision() || got.anew != 1 {
			t.Errorf("got %v, %v, begun anew %d times, want revision %d", at, err, got.anew, store.Revision())
		}
		got.wantAll(t, "p/", n, 2)
	})
}

// Few ranges are asked for with as many keys each as one alone, many with fewer.
func TestFirstPagesShareALimit(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", firstPage+1)
		for n, want := range map[int]int{1: firstPage, 2: firstPage, 10: firstPage, 20: firstPage / 2, 100: 100} {
			pages, err := FirstPages(t.Context(), conn.Client, slices.Repeat([]KeyRange{Prefix("p/")}, n))
			if err != nil || len(pages[n-1].kvs) != want {
				t.Errorf("%d ranges: %d keys of the last, want %d (%v)", n, len(pages[n-1].kvs), want, err)
			}
		}
	})
}

// A server that has no stream is read in pages, from then on.
func TestNoStream(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = firstPage + pageSize + 5
		fill(store, "p/", n)
		var got result
		list := got.list(conn, false)
		if _, err := list.Read(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		got.wantAll(t, "p/", n, 3)
		got.restart()
		if _, err := list.Read(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		got.wantAll(t, "p/", n, 2)
		if gets, streams := conn.Calls(fakeetcd.Get), conn.Calls(fakeetcd.GetStream); gets != 5 || streams != 1 {
			t.Errorf("%d gets, %d streams", gets, streams)
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
		{"refused", func(c *fakeetcd.Conn) { c.Fail(fakeetcd.GetStream, rpctypes.ErrPermissionDenied) },
			func(err error) bool { return errors.Is(err, rpctypes.ErrPermissionDenied) }, 0},
		{"torn", func(c *fakeetcd.Conn) { c.TearRangeStream(2, rpctypes.ErrNoLeader) },
			func(err error) bool { return errors.Is(err, rpctypes.ErrNoLeader) }, 0},
		{"silent after two parts", func(c *fakeetcd.Conn) { c.TearRangeStream(2, nil) },
			func(err error) bool { return errors.Is(err, ErrNoAnswer) }, CallTimeout},
		{"silent at once", func(c *fakeetcd.Conn) { onStream(c, c.Cut) },
			func(err error) bool { return errors.Is(err, ErrNoAnswer) }, CallTimeout},
		{"closed client", func(c *fakeetcd.Conn) { onStream(c, c.Close) },
			func(err error) bool { return errors.Is(err, ErrClientClosed) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				fill(store, "p/", firstPage+25)
				conn.StreamRanges(10)
				row.fault(conn)
				var got result
				began := time.Now()
				at, err := got.list(conn, false).Read(t.Context(), nil)
				if !row.want(err) || at != (Header{}) || time.Since(began) != row.after {
					t.Errorf("got %v, %v after %v, want an error after %v", at, err, time.Since(began), row.after)
				}
			})
		})
	}
}

func onStream(conn *fakeetcd.Conn, do func()) {
	conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		if call.Method == fakeetcd.GetStream {
			do()
		}
		return nil
	})
}

// A stream that the caller gives up ends with the caller's reason, not with etcd's silence.
func TestStreamOfACancelledCaller(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", firstPage+25)
		conn.StreamRanges(10)
		conn.TearRangeStream(1, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got result
		if _, err := got.list(conn, false).Read(ctx, nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoAnswer) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

// Only the time between two parts is bounded, not that of the whole list.
func TestSlowStream(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		fill(store, "p/", firstPage+25)
		conn.StreamRanges(5)
		var got result
		list := got.list(conn, false)
		add := list.Add
		list.Add = func(kvs []*mvccpb.KeyValue) {
			time.Sleep(CallTimeout - time.Millisecond)
			add(kvs)
		}
		if _, err := list.Read(t.Context(), nil); err != nil {
			t.Error(err)
		}
		got.wantAll(t, "p/", firstPage+25, 6)
	})
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		conn.StreamRanges(1000)
		fill(store, "p/", n)
		for _, paged := range []bool{false, true} {
			list := new(result).list(conn, paged)
			list.Add = func([]*mvccpb.KeyValue) {}
			b.Run(fmt.Sprintf("paged=%t/%d", paged, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := list.Read(b.Context(), nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
