// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// openWatch is the one place that watches etcd: the span's events from a revision on
// (0: from now), after a created notice. It blocks until the member answers or ctx ends.
func openWatch(ctx context.Context, client *clientv3.Client, s span, revision int64) clientv3.WatchChan {
	return client.Watch(ctx, s.key, s.options(clientv3.WithRev(revision),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())...)
}

// watchError returns what ended a watch, as etcd's typed error. A member refuses a watch
// by the text of a gRPC error, which clientv3 hands on without its type.
func watchError(resp clientv3.WatchResponse) error {
	err := resp.Err()
	if err == nil {
		return nil
	}
	if _, desc, found := strings.Cut(err.Error(), " desc = "); found {
		if typed := rpctypes.Error(errors.New(desc)); errors.As(typed, new(rpctypes.EtcdError)) {
			return typed
		}
	}
	return err
}
