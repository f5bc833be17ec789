// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestWatchSeesEachRevisionOnce(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("p/a", "0")
		ch := e.cli.Watch(e.ctx, "p/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		e.expect("created", e.next(ch), "rev 2: created")
		e.put("p/a", "1")
		e.put("q", "1")
		_, err := e.cli.Txn(e.ctx).Then(clientv3.OpPut("p/c", "1"), clientv3.OpDelete("p/a"), clientv3.OpPut("z", "1")).Commit()
		e.expectErr("txn", err, nil)
		e.expect("put", e.next(ch), "rev 3: p/a=1@3")
		e.expect("txn", e.next(ch), "rev 5: p/c=1@5 -p/a@5")
		e.expect("then", e.next(ch), "nothing")
	})
}

func TestWatchFromARevision(t *testing.T) {
	bubble(t, func(e *env) {
		for i := range 4 {
			e.put("a", fmt.Sprint(i))
		}
		past := e.cli.Watch(e.ctx, "a", clientv3.WithRev(3))
		e.expect("past, in one response", e.next(past), "rev 5: a=1@3 a=2@4 a=3@5")
		future := e.cli.Watch(e.ctx, "a", clientv3.WithRev(7))
		e.put("a", "4")
		e.expect("before the start", e.next(future), "nothing")
		e.put("a", "5")
		e.expect("from the start", e.next(future), "rev 7: a=5@7")

		e.expectErr("compact", e.store.Compact(5), nil)
		at := e.cli.Watch(e.ctx, "a", clientv3.WithRev(5))
		e.expect("at the compaction", e.next(at), "rev 7: a=3@5 a=4@6 a=5@7")
		below := e.cli.Watch(e.ctx, "a", clientv3.WithRev(4))
		synctest.Wait()
		resp := <-below
		e.expect("below it", []any{resp.CompactRevision, resp.Canceled, resp.Err()},
			"[5 true etcdserver: mvcc: required revision has been compacted]")
		e.expect("and then", e.next(below), "closed")
	})
}

func TestWatchFarBehindIsBatched(t *testing.T) {
	bubble(t, func(e *env) {
		for range maxBatch + 5 {
			e.store.Put("a", "")
		}
		ch := e.cli.Watch(e.ctx, "a", clientv3.WithRev(2))
		e.expect("first batch", strings.Count(e.next(ch), "a="), maxBatch)
		e.expect("second batch", strings.Count(e.next(ch), "a="), 5)
	})
}

func TestWatchOptions(t *testing.T) {
	bubble(t, func(e *env) {
		old := e.cli.Watch(e.ctx, "a", clientv3.WithPrevKV())
		noPut := e.cli.Watch(e.ctx, "a", clientv3.WithFilterPut())
		noDelete := e.cli.Watch(e.ctx, "", clientv3.WithFromKey(), clientv3.WithFilterDelete(), clientv3.WithFragment())
		synctest.Wait()
		e.put("a", "1")
		e.put("a", "2")
		e.store.Delete("a")
		e.expect("put", e.next(old), "rev 2: a=1@2")
		e.expect("put again", e.next(old), "rev 3: a=2@3(was 1)")
		e.expect("delete", e.next(old), "rev 4: -a@4(was 2)")
		e.expect("puts filtered", e.next(noPut), "rev 4: -a@4")
		e.expect("deletes not", e.next(noDelete)+", "+e.next(noDelete), "rev 2: a=1@2, rev 3: a=2@3")
		e.expect("deletes filtered", e.next(noDelete), "nothing")
		e.expectErr("compact", e.store.Compact(3), nil)
		e.expect("previous values compacted", e.next(e.cli.Watch(e.ctx, "a", clientv3.WithRev(3), clientv3.WithPrevKV())), "rev 4: a=2@3 -a@4(was 2)")
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	bubble(t, func(e *env) {
		ctx, cancel := context.WithCancel(e.ctx)
		one, two := e.cli.Watch(ctx, "a"), e.cli.Watch(e.ctx, "a")
		synctest.Wait()
		e.expect("open, on one stream", []int{e.conn.Watches(), e.store.Watches(), e.conn.Calls(WatchStream)}, "[2 2 1]")
		cancel()
		e.expect("cancelled", e.next(one), "closed")
		e.expect("the other", e.next(two), "nothing")
		e.expect("open", e.conn.Watches(), 1)
	})
}

func TestASlowWatchHoldsNobodyUp(t *testing.T) {
	bubble(t, func(e *env) {
		slow, quick := e.cli.Watch(e.ctx, "a"), e.cli.Watch(e.ctx, "a")
		synctest.Wait()
		for i := range 2000 {
			e.put("a", "")
			if resp := <-quick; resp.Events[0].Kv.ModRevision != int64(i+2) {
				t.Fatalf("got revision %d, want %d", resp.Events[0].Kv.ModRevision, i+2)
			}
		}
		for i := range 2000 {
			if resp := <-slow; resp.Events[0].Kv.ModRevision != int64(i+2) {
				t.Fatalf("slow: got revision %d, want %d", resp.Events[0].Kv.ModRevision, i+2)
			}
		}
	})
}

func TestRequestProgress(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("a", "")
		other := clientv3.WithRequireLeader(e.ctx) // metadata of its own: a stream of its own
		one, two, apart := e.cli.Watch(e.ctx, "a"), e.cli.Watch(e.ctx, "b"), e.cli.Watch(other, "a")
		synctest.Wait()
		e.expectErr("request", e.cli.RequestProgress(e.ctx), nil)
		e.expect("one", e.next(one), "rev 2: progress")
		e.expect("two", e.next(two), "rev 2: progress")
		e.expect("another stream", e.next(apart), "nothing")
		ctx, cancel := context.WithCancel(e.ctx)
		waits := e.cli.Watch(ctx, "b", clientv3.WithRev(9))
		synctest.Wait()
		e.expectErr("request", e.cli.RequestProgress(e.ctx), nil)
		e.expect("while one waits for a revision to come", e.next(one)+", "+e.next(waits), "nothing, nothing")
		cancel()
		synctest.Wait()
		e.expectErr("request", e.cli.RequestProgress(e.ctx), nil)
		e.expect("after it", e.next(one), "rev 2: progress")
		e.expect("calls", e.conn.Calls(Progress), 3)
	})
}
