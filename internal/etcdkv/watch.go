// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch is the one place that watches etcd: the range's events from a revision on
// (0: from now), after a created notice. It blocks until the member answers or ctx ends.
func Watch(ctx context.Context, client *clientv3.Client, r KeyRange, revision int64, more ...clientv3.OpOption) clientv3.WatchChan {
	return client.Watch(ctx, r.Key, r.options(append(more, clientv3.WithRev(revision),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())...)...)
}
