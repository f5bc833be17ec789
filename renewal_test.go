// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// clientv3 closes the channel of a lease that etcd does not have, and of one that it could not renew in
// time, which it counts from when it received a renewal: a busy process may have it later. What it does
// not renew for half the lease's time is renewed on a stream of its own, and followed again.
func TestRenewal(t *testing.T) {
	const ttl = 10 * time.Second
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	refused := func(context.Context) error { return errors.New("refused") }
	renews := func(context.Context) error { return nil }
	missing := func(context.Context) error { return rpctypes.ErrLeaseNotFound }
	for _, c := range []struct {
		name     string
		received []time.Duration // renewals
		closed   time.Duration
		once     []func(context.Context) error // what becomes of own renewals; of more, the last
		want     error
		at       time.Duration // when follow returns
	}{
		{"missing at the first renewal", nil, ttl / 30, nil, rpctypes.ErrLeaseNotFound, ttl / 30},
		{"missing at a later renewal", []time.Duration{0, ttl / 3}, 2 * ttl / 3, nil, rpctypes.ErrLeaseNotFound, 2 * ttl / 3},
		{"first renewal not answered", nil, 5 * time.Second, []func(context.Context) error{refused}, errNotRenewed, 5 * time.Second},
		{"later renewals not answered", []time.Duration{0, ttl / 3}, ttl/3 + ttl, []func(context.Context) error{hangs}, errNotRenewed, ttl/3 + ttl},
		{"renewal received late", []time.Duration{0, ttl/3 + ttl/5}, ttl/3 + ttl, []func(context.Context) error{refused}, errNotRenewed, ttl/3 + ttl},
		{"missing at an own renewal", []time.Duration{0}, ttl, []func(context.Context) error{missing}, rpctypes.ErrLeaseNotFound, ttl / 2},
		{"own renewals go on for ever", []time.Duration{0, ttl / 3}, ttl/3 + ttl, []func(context.Context) error{hangs, refused, renews}, nil, time.Minute},
		{"own renewals for a while", []time.Duration{0}, ttl, []func(context.Context) error{renews, refused}, errNotRenewed, ttl/2 + ttl},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began, opened, tries, renewed := time.Now(), 0, 0, 0
				l := renewal{ttl: ttl, renewed: func() { renewed++ }}
				l.once = func(ctx context.Context, _ clientv3.LeaseID) error {
					tries++
					return c.once[min(tries, len(c.once))-1](ctx)
				}
				l.keepAlive = func(context.Context, clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
					alive := make(chan *clientv3.LeaseKeepAliveResponse)
					if opened++; opened > 1 { // nobody answers the next ones
						time.AfterFunc(5*time.Second, func() { close(alive) })
						return alive, nil
					}
					go func() {
						for _, at := range c.received {
							time.Sleep(at - time.Since(began))
							alive <- &clientv3.LeaseKeepAliveResponse{}
						}
						time.Sleep(c.closed - time.Since(began))
						close(alive)
					}()
					return alive, nil
				}
				alive, _ := l.keepAlive(ctx, 0)
				if err := l.follow(ctx, alive); !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if took := time.Since(began); took != c.at {
					t.Errorf("it took %v, want %v", took, c.at)
				}
				if c.want == nil && (opened < 3 || renewed < 12 || tries > 20) {
					t.Errorf("opened %d times, renewed %d times, by %d tries", opened, renewed, tries)
				}
				time.Sleep(time.Minute) // the channels close
			})
		})
	}
}
