// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestLeaseExpires(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(10)
		e.put("b", "1", clientv3.WithLease(id))
		e.put("a", "1", clientv3.WithLease(id))
		e.put("c", "1", clientv3.WithLease(id))
		e.put("c", "2") // no longer its
		ch := e.cli.Watch(e.ctx, "", clientv3.WithPrefix())
		time.Sleep(4 * time.Second)
		ttl, err := e.cli.TimeToLive(e.ctx, id, clientv3.WithAttachedKeys())
		e.expectErr("time to live", err, nil)
		e.expect("time to live", []any{ttl.TTL, ttl.GrantedTTL, string(ttl.Keys[0]), string(ttl.Keys[1]), len(ttl.Keys)}, "[6 10 a b 2]")
		e.expect("info", e.store.Leases()[id], "{10 6s [a b]}")
		time.Sleep(6*time.Second - 1)
		e.expect("an instant before", e.next(ch), "nothing")
		time.Sleep(time.Nanosecond)
		e.expect("all keys in one revision", e.next(ch), "rev 6: -a@6 -b@6")
		ttl, err = e.cli.TimeToLive(e.ctx, id)
		e.expectErr("time to live", err, nil)
		e.expect("when gone", []any{ttl.TTL, ttl.ID == id}, "[-1 true]")
		_, err = e.cli.Put(e.ctx, "a", "", clientv3.WithLease(id))
		e.expectErr("put", err, rpctypes.ErrLeaseNotFound)
		_, err = e.cli.KeepAliveOnce(e.ctx, id)
		e.expectErr("keep alive once", err, rpctypes.ErrLeaseNotFound)
	})
}

func TestGrantAndRevoke(t *testing.T) {
	bubble(t, func(e *env) {
		got, err := e.cli.Grant(e.ctx, 1)
		e.expectErr("grant", err, nil)
		e.expect("least TTL", got.TTL, 2)
		_, err = e.cli.Grant(e.ctx, maxLease+1)
		e.expectErr("too long", err, rpctypes.ErrLeaseTTLTooLarge)
		id := e.grant(30)
		list, err := e.cli.Leases(e.ctx)
		e.expectErr("leases", err, nil)
		e.expect("leases", []any{len(list.Leases), list.Leases[1].ID == id}, "[2 true]")
		e.put("a", "", clientv3.WithLease(id))
		resp, err := e.cli.Revoke(e.ctx, id)
		e.expectErr("revoke", err, nil)
		e.expect("revoked", []any{resp.Header.Revision, e.store.Values(), len(e.store.Leases())}, "[3 map[] 1]")
		_, err = e.cli.Revoke(e.ctx, id)
		e.expectErr("again", err, rpctypes.ErrLeaseNotFound)
		e.expect("expire: alive, dead", []bool{e.store.ExpireLease(got.ID), e.store.ExpireLease(got.ID)}, "[true false]")
	})
}

func TestKeepAlive(t *testing.T) {
	bubble(t, func(e *env) {
		id := e.grant(9)
		e.put("a", "", clientv3.WithLease(id))
		ctx, cancel := context.WithCancel(e.ctx)
		ch, err := e.cli.KeepAlive(ctx, id)
		e.expectErr("keep alive", err, nil)
		time.Sleep(31 * time.Second)
		if n := len(ch); n < 9 || n > 11 { // every TTL/3
			t.Errorf("got %d answers in 31 s, want 9 to 11", n)
		}
		e.expect("alive", len(e.store.Leases()), 1)
		_, err = e.cli.KeepAliveOnce(e.ctx, id)
		e.expectErr("once", err, nil)
		e.expect("renewed", e.store.Leases()[id].Remaining, 9*time.Second)
		cancel()
		time.Sleep(10 * time.Second)
		e.expect("after its context", len(e.store.Leases()), 0)
		e.expect("drained", drained(ch), true)
	})
}

// drained reports whether the channel is closed, after what is in it.
func drained(ch <-chan *clientv3.LeaseKeepAliveResponse) bool {
	synctest.Wait()
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return true
			}
		default:
			return false
		}
	}
}

func TestKeepAliveOfADeadLeaseIsSilent(t *testing.T) {
	bubble(t, func(e *env) {
		ch, err := e.cli.KeepAlive(e.ctx, 99)
		e.expectErr("never granted", err, nil)
		time.Sleep(time.Second)
		e.expect("closed", drained(ch), true)
		id := e.grant(9)
		ch, err = e.cli.KeepAlive(e.ctx, id)
		e.expectErr("keep alive", err, nil)
		time.Sleep(time.Second)
		e.expect("open", drained(ch), false)
		e.store.ExpireLease(id)
		time.Sleep(4 * time.Second)
		e.expect("after it died", drained(ch), true)
	})
}

func TestKeepAliveWhileCutOff(t *testing.T) {
	for _, row := range []struct {
		name  string
		cut   time.Duration
		alive bool
	}{{"less than the TTL", 5 * time.Second, true}, {"longer than the TTL", 11 * time.Second, false}} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(e *env) {
				id := e.grant(9)
				ch, _ := e.cli.KeepAlive(e.ctx, id)
				time.Sleep(time.Second)
				e.conn.Cut()
				time.Sleep(row.cut)
				e.conn.Mend()
				time.Sleep(20 * time.Second)
				e.expect("lease", len(e.store.Leases()) == 1, row.alive)
				e.expect("channel closed", drained(ch), !row.alive)
			})
		})
	}
}
