// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// TTL is what etcd tells of a lease. It is zero for one that has ended.
type TTL = etcdkv.TTL

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
	return etcdkv.TTLs(ctx, client, leases)
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
