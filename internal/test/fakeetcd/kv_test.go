// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestRevisionsOfAKey(t *testing.T) {
	bubble(t, func(e *env) {
		e.expect("new store", e.store.Revision(), 1)
		e.put("a", "1")
		e.put("b", "1")
		resp := e.put("a", "2", clientv3.WithPrevKV())
		e.expect("previous value", string(resp.PrevKv.Value), "1")
		want := []*mvccpb.KeyValue{{Key: []byte("a"), Value: []byte("2"), CreateRevision: 2, ModRevision: 4, Version: 2}}
		if d := cmp.Diff(want, e.get("a").Kvs, protocmp.Transform()); d != "" {
			t.Errorf("get (-want +got):\n%s", d)
		}
		del, err := e.cli.Delete(e.ctx, "a", clientv3.WithPrevKV())
		e.expectErr("delete", err, nil)
		e.expect("delete", []any{del.Deleted, del.Header.Revision, keys(del.PrevKvs)}, "[1 5 a=2]")
		del, _ = e.cli.Delete(e.ctx, "a")
		e.expect("delete of nothing", []any{del.Deleted, del.Header.Revision}, "[0 5]")
		e.put("a", "3")
		e.expect("created again", e.get("a").Kvs[0].CreateRevision, 6)
		h := e.get("a").Header
		e.expect("header", []any{h.ClusterId != 0, h.MemberId != 0, h.RaftTerm, h.Revision}, "[true true 2 6]")
		e.store.SetTerm(9)
		e.expect("term", e.get("a").Header.RaftTerm, 9)
	})
}

func TestGetOptions(t *testing.T) {
	bubble(t, func(e *env) {
		for _, kv := range []string{"p/a=3", "p/b=2", "p/c=1", "q=0", "p/a=9"} {
			k, v, _ := strings.Cut(kv, "=")
			e.put(k, v)
		}
		const desc, asc = clientv3.SortDescend, clientv3.SortAscend
		prefix := clientv3.WithPrefix()
		for _, row := range []struct {
			name, key string
			opts      []clientv3.OpOption
			want      string
			count     int64
			more      bool
		}{
			{"single", "p/a", nil, "p/a=9", 1, false},
			{"missing", "p/", nil, "", 0, false},
			{"prefix", "p/", []clientv3.OpOption{prefix}, "p/a=9 p/b=2 p/c=1", 3, false},
			{"everything", "", []clientv3.OpOption{prefix}, "p/a=9 p/b=2 p/c=1 q=0", 4, false},
			{"range", "p/b", []clientv3.OpOption{clientv3.WithRange("q")}, "p/b=2 p/c=1", 2, false},
			{"from key", "p/c", []clientv3.OpOption{clientv3.WithFromKey()}, "p/c=1 q=0", 2, false},
			{"limit", "p/", []clientv3.OpOption{prefix, clientv3.WithLimit(2)}, "p/a=9 p/b=2", 3, true},
			{"limit reached exactly", "p/", []clientv3.OpOption{prefix, clientv3.WithLimit(3)}, "p/a=9 p/b=2 p/c=1", 3, false},
			{"count only", "p/", []clientv3.OpOption{prefix, clientv3.WithCountOnly()}, "", 3, false},
			{"keys only", "p/b", []clientv3.OpOption{clientv3.WithKeysOnly()}, "p/b=", 1, false},
			{"by key descending", "p/", []clientv3.OpOption{prefix, clientv3.WithSort(clientv3.SortByKey, desc)}, "p/c=1 p/b=2 p/a=9", 3, false},
			{"newest", "", clientv3.WithLastRev(), "p/a=9", 4, true},
			{"oldest change", "", clientv3.WithFirstRev(), "p/b=2", 4, true},
			{"by value", "p/", []clientv3.OpOption{prefix, clientv3.WithSort(clientv3.SortByValue, asc)}, "p/c=1 p/b=2 p/a=9", 3, false},
			{"old revision", "p/", []clientv3.OpOption{prefix, clientv3.WithRev(3)}, "p/a=3 p/b=2", 2, false},
			{"changed since", "", []clientv3.OpOption{prefix, clientv3.WithMinModRev(5)}, "p/a=9 q=0", 4, false},
			{"created until", "", []clientv3.OpOption{prefix, clientv3.WithMaxCreateRev(2)}, "p/a=9", 4, false},
			{"serializable", "q", []clientv3.OpOption{clientv3.WithSerializable()}, "q=0", 1, false},
		} {
			got := e.get(row.key, row.opts...)
			e.expect(row.name, []any{keys(got.Kvs), got.Count, got.More}, []any{row.want, row.count, row.more})
			e.expect(row.name+": header", got.Header.Revision, 6)
		}
		_, err := e.cli.Get(e.ctx, "p", clientv3.WithRev(7))
		e.expectErr("a revision to come", err, rpctypes.ErrFutureRev)
		_, err = e.cli.Get(e.ctx, "")
		e.expectErr("no key", err, rpctypes.ErrEmptyKey)
	})
}

func TestPutOptions(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(60)
		_, err := e.cli.Put(e.ctx, "a", "1", clientv3.WithLease(7))
		e.expectErr("unknown lease", err, rpctypes.ErrLeaseNotFound)
		_, err = e.cli.Put(e.ctx, "a", "", clientv3.WithIgnoreValue())
		e.expectErr("no value to keep", err, rpctypes.ErrKeyNotFound)
		_, err = e.cli.Put(e.ctx, "a", "1", clientv3.WithIgnoreLease())
		e.expectErr("no lease to keep", err, rpctypes.ErrKeyNotFound)
		_, err = e.cli.Put(e.ctx, "a", "1", clientv3.WithIgnoreValue())
		e.expectErr("a value with WithIgnoreValue", err, rpctypes.ErrValueProvided)
		_, err = e.cli.Put(e.ctx, "a", "1", clientv3.WithIgnoreLease(), clientv3.WithLease(id))
		e.expectErr("a lease with WithIgnoreLease", err, rpctypes.ErrLeaseProvided)
		e.expect("nothing written", e.store.Revision(), 1)

		e.put("a", "1", clientv3.WithLease(id))
		e.put("a", "2", clientv3.WithIgnoreLease())
		kv := e.get("a").Kvs[0]
		e.expect("lease kept", []any{string(kv.Value), kv.Lease == int64(id)}, "[2 true]")
		e.put("a", "", clientv3.WithIgnoreValue())
		kv = e.get("a").Kvs[0]
		e.expect("value kept, lease dropped", []any{string(kv.Value), kv.Lease}, "[2 0]")
		e.expect("attached", e.store.Leases()[id].Keys, "[]")
	})
}

func TestCompaction(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("a", "1")
		e.put("a", "2")
		e.put("b", "1")
		_, err := e.cli.Delete(e.ctx, "b")
		e.expectErr("delete", err, nil)
		_, err = e.cli.Compact(e.ctx, 6)
		e.expectErr("compaction to come", err, rpctypes.ErrFutureRev)
		_, err = e.cli.Compact(e.ctx, 4)
		e.expectErr("compaction", err, nil)
		e.expectErr("the same again", e.store.Compact(4), rpctypes.ErrCompacted)
		_, err = e.cli.Get(e.ctx, "a", clientv3.WithRev(3))
		e.expectErr("get below", err, rpctypes.ErrCompacted)
		e.expect("get at it", keys(e.get("", clientv3.WithPrefix(), clientv3.WithRev(4)).Kvs), "a=2 b=1")
		e.expectErr("to the end", e.store.Compact(5), nil)
		e.expect("what is left", keys(e.get("", clientv3.WithPrefix()).Kvs), "a=2")
		e.expect("keys with past revisions", e.store.state.keys, "[a]")
	})
}

func TestGetStream(t *testing.T) {
	bubble(t, func(e *env) {
		for _, k := range []string{"p/a", "p/b", "p/c", "p/d", "p/e"} {
			e.put(k, "v")
		}
		ch, err := e.cli.GetStream(e.ctx, "p/", clientv3.WithPrefix())
		e.expectErr("an old server's stream opens", err, nil)
		_, err = clientv3.GetStreamToGetResponse(ch)
		e.expect("and fails", status.Code(err), codes.Unimplemented)

		e.conn.StreamRanges(2)
		ch, _ = e.cli.GetStream(e.ctx, "p/", clientv3.WithPrefix())
		var got []any
		for part := range ch {
			got = append(got, len(part.Kvs), part.Header.GetRevision(), part.Count)
		}
		e.expect("chunks: keys, revision, count", got, "[2 0 0 2 0 0 1 6 5]")
		ch, _ = e.cli.GetStream(e.ctx, "p/", clientv3.WithPrefix(), clientv3.WithLimit(3), clientv3.WithRev(4))
		whole, err := clientv3.GetStreamToGetResponse(ch)
		e.expectErr("stream", err, nil)
		e.expect("limited, at a revision", []any{keys(whole.Kvs), whole.Count, whole.More, whole.Header.Revision}, "[p/a=v p/b=v p/c=v 3 false 6]")

		e.conn.TearRangeStream(1, rpctypes.ErrCompacted)
		ch, _ = e.cli.GetStream(e.ctx, "p/", clientv3.WithPrefix())
		_, err = clientv3.GetStreamToGetResponse(ch)
		e.expectErr("torn", err, rpctypes.ErrCompacted)
		e.conn.TearRangeStream(1, nil)
		ch, _ = e.cli.GetStream(e.within(3*time.Second), "p/", clientv3.WithPrefix())
		start := time.Now()
		_, err = clientv3.GetStreamToGetResponse(ch)
		e.expect("stalled", []any{err, time.Since(start)}, "[context deadline exceeded 3s]")
		ch, _ = e.cli.GetStream(e.ctx, "p/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
		_, err = clientv3.GetStreamToGetResponse(ch)
		e.expect("sorted", status.Code(err), codes.Unimplemented)
	})
}

func TestTxn(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(60)
		e.put("a", "5", clientv3.WithLease(id))
		e.put("a", "6", clientv3.WithLease(id)) // created at 2, modified at 3, version 2
		e.put("b", "6")
		for _, row := range []struct {
			name string
			cmp  clientv3.Cmp
			want bool
		}{
			{"created =", clientv3.Compare(clientv3.CreateRevision("a"), "=", 2), true},
			{"created !=", clientv3.Compare(clientv3.CreateRevision("a"), "!=", 2), false},
			{"modified >", clientv3.Compare(clientv3.ModRevision("a"), ">", 2), true},
			{"modified <", clientv3.Compare(clientv3.ModRevision("a"), "<", 3), false},
			{"version =", clientv3.Compare(clientv3.Version("a"), "=", 2), true},
			{"version >", clientv3.Compare(clientv3.Version("a"), ">", 2), false},
			{"value <", clientv3.Compare(clientv3.Value("a"), "<", "7"), true},
			{"value !=", clientv3.Compare(clientv3.Value("a"), "!=", "6"), false},
			{"lease =", clientv3.Compare(clientv3.LeaseValue("a"), "=", id), true},
			{"lease !=", clientv3.Compare(clientv3.LeaseValue("a"), "!=", id), false},
			{"absent: created", clientv3.Compare(clientv3.CreateRevision("x"), "=", 0), true},
			{"absent: lease", clientv3.Compare(clientv3.LeaseValue("x"), "=", clientv3.NoLease), true},
			{"absent: value", clientv3.Compare(clientv3.Value("x"), "=", ""), false},
			{"range: all", clientv3.Compare(clientv3.Value("a").WithRange("c"), "=", "6"), true},
			{"range: one", clientv3.Compare(clientv3.LeaseValue("a").WithRange("c"), "=", id), false},
		} {
			resp, err := e.cli.Txn(e.ctx).If(row.cmp).Then(clientv3.OpGet("a")).Else(clientv3.OpGet("b")).Commit()
			e.expectErr(row.name, err, nil)
			e.expect(row.name, resp.Succeeded, row.want)
		}
		e.expect("reads write nothing", e.store.Revision(), 4)
		resp, err := e.cli.Txn(e.ctx).Then(
			clientv3.OpPut("c", "1", clientv3.WithPrevKV()), clientv3.OpDelete("a", clientv3.WithPrevKV()),
			clientv3.OpGet("", clientv3.WithPrefix()), clientv3.OpPut("d", "1"), clientv3.OpDelete("zzz"),
		).Commit()
		e.expectErr("writes", err, nil)
		e.expect("one revision", []any{resp.Header.Revision, e.store.Revision()}, "[5 5]")
		e.expect("a read sees what stands before it", keys(resp.Responses[2].GetResponseRange().Kvs), "b=6 c=1")
		e.expect("deleted", keys(resp.Responses[1].GetResponseDeleteRange().PrevKvs), "a=6")
		e.expect("all", e.store.Values(), "map[b:6 c:1 d:1]")
		e.expect("attached", e.store.Leases()[id].Keys, "[]")
	})
}

// A transaction within another has conditions of its own, which are decided before anything is
// written, and shares its revision.
func TestNestedTxn(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("a", "1")
		absent := func(key string) []clientv3.Cmp {
			return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", 0)}
		}
		create := func(key string) clientv3.Op {
			return clientv3.OpTxn(absent(key), []clientv3.Op{clientv3.OpPut(key, "2")}, []clientv3.Op{clientv3.OpGet(key)})
		}
		twice := clientv3.OpTxn(absent("c"), []clientv3.Op{clientv3.OpPut("d", "then")}, []clientv3.Op{clientv3.OpPut("d", "else")})
		resp, err := e.cli.Txn(e.ctx).Then(create("a"), create("b"), clientv3.OpPut("c", "2"), twice, clientv3.OpGet("b")).Commit()
		e.expectErr("nested", err, nil)
		taken, created := resp.Responses[0].GetResponseTxn(), resp.Responses[1].GetResponseTxn()
		e.expect("conditions", []any{resp.Succeeded, taken.Succeeded, created.Succeeded}, "[true false true]")
		e.expect("found", keys(taken.Responses[0].GetResponseRange().Kvs), "a=1")
		e.expect("written", e.store.Values(), "map[a:1 b:2 c:2 d:then]")
		e.expect("one revision", []any{resp.Header.Revision, e.store.Revision()}, "[3 3]")
		e.expect("a read sees what stands before it", keys(resp.Responses[4].GetResponseRange().Kvs), "b=2")
	})
}

func TestTxnRefused(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("a", "1")
		many := func(n int) (ops []clientv3.Op) {
			for i := range n {
				ops = append(ops, clientv3.OpPut(string(rune(0x100+i)), ""))
			}
			return ops
		}
		put := clientv3.OpPut
		nested := func(key string) clientv3.Op {
			return clientv3.OpTxn(nil, []clientv3.Op{put(key, "then")}, []clientv3.Op{put(key, "else")})
		}
		for _, row := range []struct {
			name string
			ops  []clientv3.Op
			want error
		}{
			{"put twice", []clientv3.Op{put("a", "2"), put("a", "3")}, rpctypes.ErrDuplicateKey},
			{"put and deleted", []clientv3.Op{put("a", "2"), clientv3.OpDelete("", clientv3.WithPrefix())}, rpctypes.ErrDuplicateKey},
			{"too many", many(129), rpctypes.ErrTooManyOps},
			{"too large", []clientv3.Op{put("a", strings.Repeat("x", maxRequest))}, rpctypes.ErrRequestTooLarge},
			{"too many within", append(many(127), clientv3.OpTxn(nil, many(2)[1:], nil)), rpctypes.ErrTooManyOps},
			{"put twice within", []clientv3.Op{nested("a"), put("a", "3")}, rpctypes.ErrDuplicateKey},
			{"put in two within", []clientv3.Op{nested("a"), nested("a")}, rpctypes.ErrDuplicateKey},
			{"put within and deleted", []clientv3.Op{nested("a"), clientv3.OpDelete("a")}, rpctypes.ErrDuplicateKey},
			{"a lease within", []clientv3.Op{put("b", "2"), clientv3.OpTxn(nil, []clientv3.Op{put("c", "", clientv3.WithLease(9))}, nil)}, rpctypes.ErrLeaseNotFound},
			{"no key", []clientv3.Op{put("", "2")}, rpctypes.ErrEmptyKey},
			{"second op's lease", []clientv3.Op{put("b", "2"), put("c", "", clientv3.WithLease(9))}, rpctypes.ErrLeaseNotFound},
			{"second op's read", []clientv3.Op{put("b", "2"), clientv3.OpGet("a", clientv3.WithRev(99))}, rpctypes.ErrFutureRev},
		} {
			_, err := e.cli.Txn(e.ctx).Then(row.ops...).Commit()
			e.expectErr(row.name, err, row.want)
			_, err = e.cli.Txn(e.ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 0)).Else(row.ops...).Commit()
			e.expectErr(row.name+" (else)", err, row.want)
		}
		_, err := e.cli.Put(e.ctx, "a", strings.Repeat("x", maxSend))
		e.expect("more than the client sends", status.Code(err), codes.ResourceExhausted)
		e.expect("nothing written", []any{e.store.Values(), e.store.Revision()}, "[map[a:1] 2]")
		_, err = e.cli.Txn(e.ctx).Then(many(128)...).Commit()
		e.expectErr("128", err, nil)
		e.store.SetLimits(1, 10)
		_, err = e.cli.Txn(e.ctx).Then(many(2)...).Commit()
		e.expectErr("limits set", err, rpctypes.ErrTooManyOps)
	})
}
