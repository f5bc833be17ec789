// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseWorkers is how many leases are looked up at once.
const leaseWorkers = 16

// TTL is what etcd tells of a lease. Both are 0 for one that has ended.
type TTL struct {
	Granted int64 // seconds
	Left    int64 // seconds, when it was looked up
}

// Leases returns the leases that keys are under, each once.
func Leases(instances []Instance) (leases []clientv3.LeaseID) {
	seen := map[clientv3.LeaseID]bool{clientv3.NoLease: true}
	for _, inst := range instances {
		if !seen[inst.lease] {
			seen[inst.lease] = true
			leases = append(leases, inst.lease)
		}
	}
	return leases
}

// LookUp asks etcd for the TTL of each lease, of several at once. The result lacks those that
// could not be looked up; err then has how many and one of the causes.
func LookUp(ctx context.Context, client clientv3.Lease, leases []clientv3.LeaseID) (map[clientv3.LeaseID]TTL, error) {
	var mu sync.Mutex
	var cause error
	ttls := make(map[clientv3.LeaseID]TTL, len(leases))
	var wg sync.WaitGroup
	slots := make(chan struct{}, leaseWorkers)
	for _, lease := range leases {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ttl, err := lookUp(ctx, client, lease)
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
	if cause != nil {
		return ttls, fmt.Errorf("cannot look up the TTL of %d of %d leases: %w", len(leases)-len(ttls), len(leases), cause)
	}
	return ttls, nil
}

func lookUp(ctx context.Context, client clientv3.Lease, lease clientv3.LeaseID) (TTL, error) {
	resp, err := client.TimeToLive(ctx, lease)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil && resp.TTL < 0 {
		return TTL{}, nil
	}
	if err != nil {
		return TTL{}, fmt.Errorf("look up lease %x: %w", int64(lease), err)
	}
	return TTL{Granted: resp.GrantedTTL, Left: resp.TTL}, nil
}

// SetTTLs enters what LookUp has found.
func SetTTLs(instances []Instance, ttls map[clientv3.LeaseID]TTL) {
	for i := range instances {
		if ttl, ok := ttls[instances[i].lease]; ok {
			instances[i].TTL, instances[i].TTLLeft, instances[i].leaseEnded = ttl.Granted, ttl.Left, ttl.Granted == 0
		}
	}
}

// LeftText returns what is left of the lease, such as "27s", "ended", or "" for none and for one that
// was not looked up.
func (i Instance) LeftText() string {
	left, _, _ := strings.Cut(i.TTLText(), "/")
	return left
}

// TTLText returns what is left of the lease and what it was granted, such as "27s/30s", "ended", or "" for
// none and for one that was not looked up.
func (i Instance) TTLText() string {
	switch {
	case i.leaseEnded:
		return "ended"
	case i.TTL == 0:
		return ""
	}
	return fmt.Sprintf("%ds/%ds", i.TTLLeft, i.TTL)
}
