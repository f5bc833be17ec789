// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// openWatch is the one place that watches etcd: the span's events from a revision on
// (0: from now), after a created notice. It blocks until the member answers or ctx ends.
func openWatch(ctx context.Context, client *clientv3.Client, s span, revision int64) clientv3.WatchChan {
	return client.Watch(ctx, s.key, s.options(clientv3.WithRev(revision),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())...)
}
