// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// leaseQuestions is how many leases are asked about at once.
const leaseQuestions = 16

// TTL is what etcd tells of a lease. It is zero for one that has ended.
type TTL struct {
	Granted int64  // seconds
	Left    int64  // seconds, when it was looked up
	Term    uint64 // of raft, of the member that answered: a new leader renews all leases
}

// TTLs asks etcd for the TTL of each lease, of several at once, until the context ends. The result
// lacks those that could not be looked up; err then has how many and one of the causes.
func TTLs(ctx context.Context, client clientv3.Lease, leases []clientv3.LeaseID) (map[clientv3.LeaseID]TTL, error) {
	var mu sync.Mutex
	var cause error
	ttls := make(map[clientv3.LeaseID]TTL, len(leases))
	var wg sync.WaitGroup
	slots := make(chan struct{}, leaseQuestions)
	for _, lease := range leases {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			ttl, err := ttlOf(ctx, client, lease)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				cause = err
				return
			}
			ttls[lease] = ttl
		})
	}
	wg.Wait()
	if missing := len(leases) - len(ttls); missing > 0 {
		return ttls, fmt.Errorf("cannot look up the TTL of %d of %s: %w", missing, plural.Count(len(leases), "lease", "leases"), cmp.Or(cause, ctx.Err()))
	}
	return ttls, nil
}

func ttlOf(ctx context.Context, client clientv3.Lease, lease clientv3.LeaseID) (TTL, error) {
	resp, err := client.TimeToLive(ctx, lease)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && resp.TTL < 0 {
		return TTL{}, nil
	}
	if err != nil {
		return TTL{}, fmt.Errorf("look up lease %x: %w", int64(lease), err)
	}
	return TTL{resp.GrantedTTL, resp.TTL, resp.RaftTerm}, nil
}

// Renew renews a lease once, on a stream of its own. It tries once: clientv3's KeepAliveOnce goes on without a pause
// while etcd is unavailable.
func Renew(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error {
	conn := client.ActiveConnection()
	if conn == nil { // a client made of parts
		_, err := client.KeepAliveOnce(ctx, lease)
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	if err == nil {
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease)})
	}
	if err != nil {
		return rpctypes.Error(err)
	}
	resp, err := stream.Recv()
	switch {
	case err != nil:
		return rpctypes.Error(err)
	case resp.TTL <= 0:
		return rpctypes.ErrLeaseNotFound
	}
	return nil
}
