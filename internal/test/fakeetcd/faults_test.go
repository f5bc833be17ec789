// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestCutAndMend(t *testing.T) {
	bubble(t, func(e *env) {
		other := e.store.Connect(e.ctx)
		ch := e.cli.Watch(e.ctx, "a", clientv3.WithCreatedNotify())
		e.expect("created", e.next(ch), "rev 1: created")
		e.conn.Cut()
		start := time.Now()
		_, err := e.cli.Get(e.within(5*time.Second), "a")
		e.expect("a call", []any{err, time.Since(start)}, "[context deadline exceeded 5s]")
		for _, v := range []string{"1", "2"} {
			_, err = other.Client.Put(e.ctx, "a", v)
			e.expectErr("another client", err, nil)
		}
		e.expect("cut", e.next(ch), "nothing")
		done := make(chan error, 1)
		go func() {
			_, err := e.cli.Put(e.within(time.Minute), "a", "3")
			done <- err
		}()
		time.Sleep(30 * time.Second)
		e.conn.Mend()
		e.expectErr("a call that waited", <-done, nil)
		time.Sleep(time.Second)
		// The watch may resume before or after that put.
		got := e.next(ch)
		if got == "rev 3: a=1@2 a=2@3" {
			e.expect("resumed", e.next(ch), "rev 4: a=3@4")
		} else {
			e.expect("resumed", got, "rev 4: a=1@2 a=2@3 a=3@4")
		}
		e.expect("no second notice", e.next(ch), "nothing")
	})
}

func TestCompactedWhileCut(t *testing.T) {
	bubble(t, func(e *env) {
		ch := e.cli.Watch(e.ctx, "a")
		synctest.Wait()
		e.conn.Cut()
		e.store.Put("a", "1")
		e.expectErr("compact", e.store.Compact(e.store.Put("a", "2")), nil)
		e.conn.Mend()
		time.Sleep(time.Second)
		e.expect("resumed", e.next(ch), "rev 0: canceled (etcdserver: mvcc: required revision has been compacted)")
		e.expect("and then", e.next(ch), "closed")
	})
}

func TestFreeze(t *testing.T) {
	bubble(t, func(e *env) {
		ch := e.cli.Watch(e.ctx, "a")
		synctest.Wait()
		e.conn.Freeze()
		e.put("a", "1")
		e.expectErr("request", e.cli.RequestProgress(e.ctx), nil)
		same := watchInBackground(e, e.ctx)
		fresh := e.cli.Watch(metadata.AppendToOutgoingContext(e.ctx, "try", "2"), "a", clientv3.WithRev(2))
		time.Sleep(time.Hour)
		e.expect("frozen", e.next(ch), "nothing")
		e.expect("another stream", e.next(fresh), "rev 2: a=1@2")
		e.conn.Cut()
		e.conn.Mend()
		time.Sleep(time.Hour)
		e.expect("cut as well", e.next(ch), "nothing")
		e.expect("a watch on the frozen stream is not made", len(same), 0)
		e.conn.Thaw()
		e.expect("thawed", e.next(ch), "rev 2: a=1@2")
		e.expect("thawed, the same stream", e.next(<-same), "rev 2: a=1@2")
	})
}

func TestAFrozenStreamBreaks(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(9)
		alive, _ := e.cli.KeepAlive(e.ctx, id)
		ch := e.cli.Watch(e.ctx, "a")
		time.Sleep(time.Second)
		e.conn.Freeze()
		e.put("a", "1")
		e.conn.BreakStreams()
		time.Sleep(time.Second)
		e.expect("broken and resumed", e.next(ch), "rev 2: a=1@2")
		e.conn.Freeze()
		time.Sleep(11 * time.Second)
		e.expect("a keepalive that hears nothing gives up", drained(alive), true)
		e.expect("and its lease dies", len(e.store.Leases()), 0)
	})
}

// watchInBackground is for frozen streams: Watch returns when the server has
// answered.
func watchInBackground(e *env, ctx context.Context) <-chan clientv3.WatchChan {
	got := make(chan clientv3.WatchChan, 1)
	go func() { got <- e.cli.Watch(ctx, "a", clientv3.WithRev(2)) }()
	return got
}

func TestCloseWatches(t *testing.T) {
	bubble(t, func(e *env) {
		one, two := e.cli.Watch(e.ctx, "a"), e.cli.Watch(e.ctx, "b")
		synctest.Wait()
		e.conn.CloseWatches()
		e.expect("no error", e.next(one)+", "+e.next(two), "closed, closed")
		e.expect("open", e.conn.Watches(), 0)
		again := e.cli.Watch(e.ctx, "a")
		synctest.Wait()
		e.put("a", "1")
		e.expect("a new one", e.next(again), "rev 2: a=1@2")
	})
}

func TestCancelWatches(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want error // nil: it resumes
	}{
		{"no leader", rpctypes.ErrNoLeader, rpctypes.ErrNoLeader},
		{"auth token", rpctypes.ErrInvalidAuthToken, rpctypes.ErrInvalidAuthToken},
		{"unavailable", status.Error(codes.Unavailable, "goaway"), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(e *env) {
				ch := e.cli.Watch(e.ctx, "a")
				synctest.Wait()
				e.conn.CancelWatches(row.err)
				time.Sleep(100 * time.Millisecond)
				if row.want == nil {
					e.put("a", "1")
					e.expect("resumed", e.next(ch), "rev 2: a=1@2")
					return
				}
				resp := <-ch
				e.expectErr("error", resp.Err(), row.want)
				e.expect("and then", e.next(ch), "closed")
			})
		})
	}
}

func TestFailNextAndFail(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.FailNext(Put, rpctypes.ErrNoSpace, nil, rpctypes.ErrTimeout)
		for _, want := range []error{rpctypes.ErrNoSpace, nil, rpctypes.ErrTimeout, nil} {
			_, err := e.cli.Put(e.ctx, "a", "")
			e.expectErr("put", err, want)
		}
		e.conn.Fail(Grant, status.Error(codes.PermissionDenied, "no"))
		for range 2 {
			_, err := e.cli.Grant(e.ctx, 5)
			e.expect("grant", status.Code(err), codes.PermissionDenied)
		}
		e.conn.Fail(Grant, nil)
		e.grant(5)
		e.expect("calls", []int{e.conn.Calls(Put), e.conn.Calls(Grant)}, "[4 3]")
		e.conn.Fail(Watch, rpctypes.ErrPermissionDenied)
		resp := <-e.cli.Watch(e.ctx, "a")
		// etcd sends the reason as text that clientv3 does not know again.
		e.expect("watch", []any{resp.Canceled, resp.Err()}, "[true rpc error: code = PermissionDenied desc = etcdserver: permission denied]")
		e.conn.Fail(KeepAlive, status.Error(codes.Unavailable, "down"))
		_, err := e.cli.KeepAliveOnce(e.within(990*time.Millisecond), 1) // between two tries
		e.expectErr("keep alive once", err, context.DeadlineExceeded)
	})
}

func TestHookBetweenListAndWatch(t *testing.T) {
	bubble(t, func(e *env) {
		var seen []Call
		e.conn.SetHook(func(_ context.Context, call Call) error {
			seen = append(seen, call)
			if call.Method == Watch {
				e.store.Put("p/a", "2")
				return errors.Join(e.store.Compact(e.store.Put("p/a", "3")))
			}
			return nil
		})
		rev := e.get("p/", clientv3.WithPrefix()).Header.Revision
		ch := e.cli.Watch(e.ctx, "p/", clientv3.WithPrefix(), clientv3.WithRev(rev+1))
		e.expect("compacted", e.next(ch), "rev 0: canceled (etcdserver: mvcc: required revision has been compacted)")
		e.expect("calls", len(seen), 3)
		got := seen[2]
		e.expect("what the hook saw", []any{got.Method, got.Key, got.End, got.Revision}, "[Watch p/ p0 2]")
	})
}

func TestDelayWrites(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.DelayWrites(2)
		for _, key := range []string{"a", "b"} {
			_, err := e.cli.Txn(e.within(time.Second)).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, "late")).Commit()
			e.expectErr("txn", err, context.DeadlineExceeded)
		}
		e.put("b", "in time")
		e.expect("before", e.store.Values(), "map[b:in time]")
		e.conn.Land()
		e.expect("after", e.store.Values(), "map[a:late b:in time]")
	})
}

func TestLoseAnswers(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.LoseAnswers(3)
		start := time.Now()
		_, err := e.cli.Put(e.within(2*time.Second), "a", "1")
		e.expect("put", []any{err, time.Since(start)}, "[context deadline exceeded 2s]")
		_, err = e.cli.Txn(e.within(time.Second)).Then(clientv3.OpPut("b", "1")).Commit()
		e.expectErr("txn", err, context.DeadlineExceeded)
		_, err = e.cli.Grant(e.within(time.Second), 60)
		e.expectErr("grant", err, context.DeadlineExceeded)
		e.put("c", "1")
		e.expect("applied", []any{e.store.Values(), len(e.store.Leases())}, "[map[a:1 b:1 c:1] 1]")
	})
}

func TestLag(t *testing.T) {
	bubble(t, func(e *env) {
		for _, v := range []string{"1", "2", "3"} {
			e.put("a", v)
		}
		e.conn.Lag(2)
		stale := e.get("a", clientv3.WithSerializable())
		e.expect("serializable", []any{keys(stale.Kvs), stale.Header.Revision}, "[a=1 2]")
		e.expect("linearizable", keys(e.get("a").Kvs), "a=3")
		_, err := e.cli.Get(e.ctx, "a", clientv3.WithSerializable(), clientv3.WithRev(3))
		e.expectErr("what it has not got yet", err, rpctypes.ErrFutureRev)
		e.conn.Lag(99)
		e.expect("from the beginning", e.get("a", clientv3.WithSerializable()).Header.Revision, 1)
	})
}

func TestLoseLeader(t *testing.T) {
	bubble(t, func(e *env) {
		e.put("a", "1")
		plain, strict := e.cli.Watch(e.ctx, "a"), e.cli.Watch(clientv3.WithRequireLeader(e.ctx), "a")
		synctest.Wait()
		e.conn.LoseLeader()
		e.store.Put("a", "2")
		e.expect("stale", keys(e.get("a", clientv3.WithSerializable()).Kvs), "a=1")
		start := time.Now()
		_, err := e.cli.Get(e.ctx, "a")
		e.expect("linearizable", []any{err, time.Since(start)}, "[etcdserver: request timed out 7s]")
		_, err = e.cli.Put(clientv3.WithRequireLeader(e.ctx), "a", "3")
		e.expectErr("leader required", err, rpctypes.ErrNoLeader)
		resp := <-strict
		e.expectErr("watch that requires one", resp.Err(), rpctypes.ErrNoLeader)
		resp = <-e.cli.Watch(clientv3.WithRequireLeader(e.ctx), "a")
		e.expectErr("a new one", resp.Err(), rpctypes.ErrNoLeader)
		e.expectErr("request", e.cli.RequestProgress(e.ctx), nil)
		e.expect("a watch that does not, pretends", e.next(plain), "rev 2: progress")
		e.conn.FindLeader()
		e.expect("caught up", e.next(plain), "rev 3: a=2@3")
		e.expect("linearizable", keys(e.get("a").Kvs), "a=2")
	})
}
