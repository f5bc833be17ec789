// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// SmallQuota is the flag of a cluster that Fill can fill quickly.
	SmallQuota = "--quota-backend-bytes=8388608"

	filler      = "etcdtest/filler/"
	fillerBytes = 1 << 20
	// fillerKeys exceeds SmallQuota, and is far less than etcd's default.
	fillerKeys   = 64
	spaceTimeout = 60 * time.Second
)

// Fill writes until etcd raises its NOSPACE alarm. The cluster must have a small quota, such as
// SmallQuota.
func (c *Cluster) Fill(tb testing.TB) {
	tb.Helper()
	client, ctx := c.rootClient(tb)
	value := strings.Repeat("x", fillerBytes)
	for i := range fillerKeys {
		_, err := client.Put(ctx, fmt.Sprintf("%s%d", filler, i), value)
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return
		}
		if err != nil {
			tb.Fatalf("etcdtest: fill: %v", err)
		}
	}
	tb.Fatalf("etcdtest: fill: %d MiB are not enough; start the cluster with SmallQuota", fillerKeys)
}

// Free undoes Fill as an operator does: it deletes the keys of Fill, compacts, defragments every member
// and disarms the alarm. It returns once every member accepts writes.
func (c *Cluster) Free(tb testing.TB) {
	tb.Helper()
	client, ctx := c.rootClient(tb)
	resp, err := client.Delete(ctx, filler, clientv3.WithPrefix())
	if err == nil {
		_, err = client.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		tb.Fatalf("etcdtest: free: %v", err)
	}
	// Only the member that was asked reports when it has compacted; before they have compacted too,
	// defragmenting the others has no effect.
	for err = c.reclaim(ctx, client); err != nil; err = c.reclaim(ctx, client) {
		if ctx.Err() != nil {
			tb.Fatalf("etcdtest: free: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := client.Delete(ctx, filler, clientv3.WithPrefix()); err != nil {
		tb.Fatalf("etcdtest: free: %v", err)
	}
}

// reclaim defragments, and fails if a member still has no space.
func (c *Cluster) reclaim(ctx context.Context, client *clientv3.Client) error {
	each := func(f func(context.Context, *clientv3.Client, *Member) error) error {
		for _, m := range c.members {
			if !m.answers() {
				continue
			}
			err := m.ask(func(ctx context.Context, client *clientv3.Client) error { return f(ctx, client, m) })
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		return nil
	}
	err := each(func(ctx context.Context, client *clientv3.Client, m *Member) error {
		_, err := client.Defragment(ctx, m.host)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return err
	}
	return each(func(ctx context.Context, client *clientv3.Client, _ *Member) error {
		_, err := client.Put(ctx, filler+"probe", "")
		return err
	})
}

// rootClient returns a client for requests of the test itself, with a context that bounds them.
func (c *Cluster) rootClient(tb testing.TB) (*clientv3.Client, context.Context) {
	tb.Helper()
	client, err := clientv3.New(c.rootConfig(c.Endpoints()...))
	if err != nil {
		tb.Fatalf("etcdtest: client: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), spaceTimeout)
	tb.Cleanup(func() {
		cancel()
		client.Close()
	})
	return client, ctx
}
