// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// countedLease counts the questions about leases.
type countedLease struct {
	clientv3.Lease
	questions atomic.Int64
}

func (l *countedLease) TimeToLive(ctx context.Context, id clientv3.LeaseID, opts ...clientv3.LeaseOption) (*clientv3.LeaseTimeToLiveResponse, error) {
	l.questions.Add(1)
	return l.Lease.TimeToLive(ctx, id, opts...)
}

// TestMassLoss: of very many instances that go at once, etcd is asked about those alone that are shown.
func TestMassLoss(t *testing.T) {
	b := newBench(t, Options{})
	leases := &countedLease{Lease: b.client.Lease}
	b.client.Lease = leases
	const instances = 3 * maxShownGone
	for i := range instances {
		b.put(fmt.Sprintf("shop/%04d", i), `{"Addr":"10.0.0.1:1"}`, clientv3.WithLease(b.lease(60)))
	}
	page := b.open("/service?name=shop&q=none-contains-it") // whose own leases are not looked up
	if _, err := b.client.Delete(t.Context(), "shop/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	page.wait(t, fmt.Sprintf("%04d</span> deleted by hand", instances-1))
	if got := leases.questions.Load(); got != maxShownGone {
		t.Errorf("etcd was asked about %d leases, want %d", got, maxShownGone)
	}
}
