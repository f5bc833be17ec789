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
	type tries []func(context.Context) error
	for _, c := range []struct {
		name     string
		ttl      time.Duration
		age      time.Duration   // of the last renewal, at the start
		received []time.Duration // renewals
		closed   time.Duration   // when clientv3 closes the channel
		again    time.Duration   // how long it waits for the answer to another one
		once     tries           // what becomes of own renewals; of more, the last
		want     error
		at       time.Duration // when follow returns
	}{
		{"missing at the first renewal", ttl, 0, nil, ttl / 30, 0, nil, rpctypes.ErrLeaseNotFound, ttl / 30},
		{"missing at a later renewal", ttl, 0, []time.Duration{0, ttl / 3}, 2 * ttl / 3, 0, nil, rpctypes.ErrLeaseNotFound, 2 * ttl / 3},
		{"missing at an own renewal", ttl, 0, []time.Duration{0}, ttl, 0, tries{missing}, rpctypes.ErrLeaseNotFound, ttl / 2},
		{"later renewals not answered", ttl, 0, []time.Duration{0, ttl / 3}, ttl/3 + ttl, 0, tries{hangs}, errNotRenewed, ttl/3 + 95*ttl/100},
		{"no renewal answered", ttl, 0, nil, 5 * time.Second, 5 * time.Second, tries{refused}, errNotRenewed, 95 * ttl / 100},
		{"the last renewal was long ago", ttl, ttl / 2, nil, 5 * time.Second, 5 * time.Second, tries{refused}, errNotRenewed, 45 * ttl / 100},
		{"own renewals go on for ever", ttl, 0, []time.Duration{0, ttl / 3}, ttl/3 + ttl, 5 * time.Second, tries{hangs, refused, renews}, nil, time.Minute},
		{"before clientv3 is patient", ttl, 0, nil, 3 * time.Second, 3 * time.Second, tries{hangs, renews}, nil, time.Minute},
		{"of a long lease", 3 * ttl, 0, nil, 5 * time.Second, 5 * time.Second, tries{hangs, renews}, nil, time.Minute},
		{"of a short lease", ttl / 5, 0, []time.Duration{0, ttl / 15}, ttl/15 + ttl/5, 5 * time.Second, tries{hangs, renews}, nil, time.Minute},
		{"own renewals for a while", ttl, 0, []time.Duration{0}, ttl, 5 * time.Second, tries{renews, refused}, errNotRenewed, ttl/2 + 95*ttl/100},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began, opened, tried, renewed := time.Now(), 0, 0, 0
				l := renewal{ttl: c.ttl, last: began.Add(-c.age), count: func() { renewed++ }}
				l.once = func(ctx context.Context, _ clientv3.LeaseID) error {
					tried++
					return c.once[min(tried, len(c.once))-1](ctx)
				}
				l.keepAlive = func(context.Context, clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
					alive := make(chan *clientv3.LeaseKeepAliveResponse)
					if opened++; opened > 1 { // nobody answers the next ones
						time.AfterFunc(c.again, func() { close(alive) })
						return alive, nil
					}
					go func() {
						defer close(alive)
						for _, at := range c.received {
							time.Sleep(at - time.Since(began))
							alive <- &clientv3.LeaseKeepAliveResponse{}
						}
						time.Sleep(c.closed - time.Since(began))
					}()
					return alive, nil
				}
				alive, _ := l.keepAlive(ctx, 0)
				if err := l.follow(ctx, alive); !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if took := time.Since(began); (took - c.at).Abs() > 10*time.Millisecond {
					t.Errorf("it took %v, want %v", took, c.at)
				}
				if most := int(time.Minute/l.grace()) + 3; c.want == nil && (opened < 3 || renewed < most-5 || tried > most) {
					t.Errorf("opened %d times, renewed %d times, by %d tries; want %d tries at most", opened, renewed, tried, most)
				}
				time.Sleep(time.Minute) // the channels close
			})
		})
	}
}
