// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestWipe(t *testing.T) {
	bubble(t, func(e *env) {
		e.store.SetTerm(5)
		id := e.grant(60)
		e.put("a", "1", clientv3.WithLease(id))
		e.put("a", "2", clientv3.WithLease(id))
		ch := e.cli.Watch(e.ctx, "a", clientv3.WithRev(4))
		synctest.Wait()
		e.store.Wipe()
		time.Sleep(time.Second)
		h := e.get("a").Header
		e.expect("header", []any{h.Revision, h.RaftTerm, h.ClusterId == ClusterID}, "[1 2 true]")
		e.expect("leases", len(e.store.Leases()), 0)
		e.put("a", "x")
		e.put("a", "y")
		e.expect("the watch still waits", e.next(ch), "nothing")
		e.put("a", "z")
		e.expect("for its revision", e.next(ch), "rev 4: a=z@4")
	})
}

func TestRestore(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(10)
		e.put("a", "1", clientv3.WithLease(id))
		snap := e.store.Snapshot()
		ch := e.cli.Watch(e.ctx, "", clientv3.WithPrefix())
		synctest.Wait()
		time.Sleep(8 * time.Second)
		e.put("b", "1")
		e.expect("seen", e.next(ch), "rev 3: b=1@3")
		e.store.Restore(snap, 0)
		time.Sleep(5 * time.Second)
		e.expect("back", []any{e.store.Values(), e.store.Revision(), e.store.Leases()[id].Remaining}, "[map[a:1] 2 5s]")
		e.put("c", "1")
		e.expect("a revision used twice", e.next(ch), "nothing")
		e.put("c", "2")
		e.expect("overtaken", e.next(ch), "rev 4: c=2@4")
		time.Sleep(10 * time.Second)
		e.expect("its lease runs", e.next(ch), "rev 5: -a@5")
		e.store.Restore(snap, 1000)
		time.Sleep(time.Second)
		e.expect("bumped", e.next(ch), "rev 0: canceled (etcdserver: mvcc: required revision has been compacted)")
		e.expect("bumped", []any{e.store.Revision(), e.put("d", "").Header.Revision, e.store.Values()}, "[1002 1003 map[a:1 d:]]")
	})
}

func TestCloseWhileAllIsStuck(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(60)
		_, _ = e.cli.KeepAlive(e.ctx, id)
		ch := e.cli.Watch(e.ctx, "a")
		time.Sleep(time.Second)
		e.conn.Freeze()
		got := watchInBackground(e, e.ctx)
		e.conn.Cut()
		go func() { _, _ = e.cli.Put(context.Background(), "a", "") }()
		synctest.Wait()
		start := time.Now()
		e.conn.Close()
		e.expect("took", time.Since(start), "0s")
		e.expect("watch", e.next(ch), "closed")
		e.expect("the other", e.next(<-got), "closed")
	})
}

func TestConcurrentUse(t *testing.T) {
	bubble(t, func(e *env) {
		const writers, puts = 4, 50
		ch := e.cli.Watch(e.ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1))
		for i := range writers {
			go func() {
				cli := e.store.Connect(e.ctx).Client
				for range puts {
					_, _ = cli.Put(e.ctx, "k", "")
					if i == 0 {
						e.conn.BreakStreams()
					}
					time.Sleep(time.Millisecond)
				}
			}()
		}
		for want := int64(2); want < 2+writers*puts; {
			for _, ev := range (<-ch).Events {
				if ev.Kv.ModRevision != want {
					t.Fatalf("got revision %d, want %d", ev.Kv.ModRevision, want)
				}
				want++
			}
		}
	})
}
