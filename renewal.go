// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	// firstRenewal is not more than what clientv3 waits for the answer to a first keepalive: its DialTimeout
	// and a second more, or 5 s where there is no DialTimeout.
	firstRenewal = time.Second
	// renewalDelay is how late clientv3's renewals are at most, which are due after a third of the TTL: it looks
	// every 500 ms, and the answer takes a while. It matters to TTLs of a few seconds.
	renewalDelay = 700 * time.Millisecond
)

// renewal keeps one lease alive, by clientv3's stream of keepalives. All leases of a client share that stream,
// and it stays with one member: if that hangs, the stream ends later than the lease. So a lease that was not
// renewed for half its time is renewed on a stream of its own, which gRPC opens to another member.
type renewal struct {
	lease     clientv3.LeaseID
	ttl       time.Duration
	last      time.Time // when it was renewed, or granted
	keepAlive func(context.Context, clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error)
	once      func(context.Context, clientv3.LeaseID) error // renews it on a stream of its own
	count     func()                                        // is told of each renewal
}

// keepAlive renews the lease, and those that are retired and may still have keys, until
// the context ends; it cancels when the lease was not renewed for its whole time.
func (r *Registrar) keepAlive(ctx context.Context, renewals *sync.WaitGroup, cancel context.CancelCauseFunc) error {
	once := func(ctx context.Context, lease clientv3.LeaseID) error { return etcdkv.Renew(ctx, r.client, lease) }
	for _, lease := range append(slices.Clone(r.retired), r.lease) {
		l := renewal{lease: lease, ttl: r.ttl, last: time.Now(), keepAlive: r.client.KeepAlive, once: once, count: func() {}}
		present := lease == r.lease
		if present {
			l.last, l.count = r.renewed, func() { r.counts.renewals.Add(1) }
		}
		// Never with a required leader: the client would go on renewing a lease that no
		// longer exists (etcd#22094).
		alive, err := l.keepAlive(ctx, lease)
		if err != nil {
			return fmt.Errorf("keep lease %x alive: %w", int64(lease), err)
		}
		renewals.Go(func() {
			if err := l.follow(ctx, alive); err != nil && present {
				cancel(fmt.Errorf("lease %x: %w", int64(lease), err))
			}
		})
	}
	return nil
}

// follow returns why the lease is not renewed any more, nil where the context has ended. clientv3
// says no more than that: much sooner than a lease could expire, it is because etcd does not have it.
// Much, as a renewal may be received later than clientv3 received it. Otherwise clientv3 has waited for long
// enough, and is asked again: the lease may be renewed by the other way.
func (l *renewal) follow(ctx context.Context, alive <-chan *clientv3.LeaseKeepAliveResponse) (err error) {
	heard, patience := time.Now(), min(l.ttl, firstRenewal) // of clientv3
	late := time.NewTimer(max(time.Until(l.last.Add(l.grace())), time.Millisecond))
	defer late.Stop()
	for {
		select {
		case _, ok := <-alive:
			switch {
			case ok:
				heard, patience = time.Now(), l.ttl*3/4
				l.renewed(late)
			case time.Since(heard) < patience:
				return rpctypes.ErrLeaseNotFound
			case l.overdue():
				return l.notRenewed()
			default:
				if alive, err = l.keepAlive(ctx, l.lease); err != nil {
					return err
				}
				heard, patience = time.Now(), min(l.ttl, firstRenewal)
			}
		case <-late.C:
			began := time.Now()
			switch err := l.renew(ctx); {
			case err == nil:
				l.renewed(late)
			case errors.Is(err, rpctypes.ErrLeaseNotFound):
				return err
			case l.overdue():
				return l.notRenewed()
			default:
				late.Reset(max(l.pause()-time.Since(began), time.Millisecond))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// renewed notes a renewal.
func (l *renewal) renewed(late *time.Timer) {
	l.last = time.Now()
	late.Reset(l.grace())
	l.count()
}

// overdue reports whether the lease may have expired; nearly, as clientv3 counts from a moment before.
func (l *renewal) overdue() bool { return time.Since(l.last) >= l.ttl*9/10 }

func (l *renewal) notRenewed() error { return fmt.Errorf("%w within %v", errNotRenewed, l.ttl) }

// grace is for how long a lease may not be renewed before it is renewed on a stream of its own.
func (l *renewal) grace() time.Duration { return max(l.ttl/2, l.ttl/3+renewalDelay) }

// pause is from the beginning of one try to that of the next: several fit into what is left of the lease.
func (l *renewal) pause() time.Duration { return l.ttl * 3 / 20 }

// renew renews the lease once, on a stream of its own.
func (l *renewal) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), l.pause())
	defer cancel()
	return l.once(ctx, l.lease)
}
