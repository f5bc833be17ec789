// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

const (
	// secondLook is how long after the first the leases that seemed to end are looked up again.
	secondLook = 1500 * time.Millisecond
	// betweenLooks is the pause between two lookups of a lease that is watched for a renewal.
	betweenLooks = time.Second
	// longestWatch bounds how long leases are watched for a renewal: enough for a TTL of 30 s.
	longestWatch = 12 * time.Second
	// keysBack and writesBack are how many keys are looked through for an earlier lease, those that were written last,
	// and how many writes of each: 500 reads at most.
	keysBack, writesBack = 100, 5
	// readsAtOnce is how many reads of earlier revisions are under way at the same time.
	readsAtOnce = 16
)

// Watched is a lease that was watched for a renewal.
type Watched struct {
	TTL     inventory.TTL // when it was looked up last
	Renewed bool          // a renewal was seen
	Through bool          // it was watched for as long as etcd's client takes to send one
}

// lookUp looks leases up; those that could not be looked up are missing.
func (g *gathering) lookUp(ctx context.Context, leases []clientv3.LeaseID) (ttls map[clientv3.LeaseID]inventory.TTL) {
	g.missKeys("leases", g.within(ctx, listing*g.opts.Timeout, func(ctx context.Context) (err error) {
		ttls, err = inventory.LookUp(ctx, g.opts.Client, leases)
		return err
	}))
	return ttls
}

func byText(ttls map[clientv3.LeaseID]inventory.TTL) map[string]inventory.TTL {
	texts := make(map[string]inventory.TTL, len(ttls))
	for lease, ttl := range ttls {
		texts[inventory.LeaseText(lease)] = ttl
	}
	return texts
}

// leases looks all leases up, and again those that seem to end.
func (g *gathering) leases(ctx context.Context) {
	g.First = byText(g.lookUp(ctx, inventory.Leases(g.rowsWhere(func(*inventory.Instance) bool { return true }))))
	suspects := g.rowsWhere(func(row *inventory.Instance) bool {
		ttl, known := g.First[row.Lease]
		return known && ending(ttl)
	})
	if len(suspects) > 0 && backoff.Sleep(ctx, secondLook, nil) == nil {
		g.Second = byText(g.lookUp(ctx, inventory.Leases(suspects)))
		g.readAgain(ctx, suspects)
	}
}

// rowsWhere returns the keys of all services for which met holds.
func (g *gathering) rowsWhere(met func(*inventory.Instance) bool) (rows []inventory.Instance) {
	for _, s := range g.Services {
		for _, row := range s.where(met) {
			rows = append(rows, *row)
		}
	}
	return rows
}

// awaitRenewals finds out whether the leases of servers that seem to be at fault are renewed, and those that had a key
// before its present one. The keys are read again after that.
func (g *gathering) awaitRenewals(ctx context.Context) {
	suspects := g.rowsWhere(func(row *inventory.Instance) bool {
		answer, dialled := g.Answers[row.Addr]
		return dialled && row.Status == inventory.Serving && !answer.serves()
	})
	silent := slices.DeleteFunc(slices.Clone(suspects), func(row inventory.Instance) bool { return g.Answers[row.Addr].Connected })
	g.watch(ctx, append(inventory.Leases(silent), slices.Collect(maps.Values(g.emptied))...))
	g.Former = make(map[string]string)
	for _, row := range g.rowsWhere(func(row *inventory.Instance) bool { return g.emptied[row.Key] != 0 }) {
		if lease := inventory.LeaseText(g.emptied[row.Key]); g.Watched[lease].Renewed {
			g.Former[row.Key] = lease
			suspects = append(suspects, row)
		}
	}
	g.readAgain(ctx, suspects)
}

// watch looks leases up until it is known whether they are renewed: until a renewal was seen, or none in the time
// in which etcd's client sends one. It takes longestWatch at most. A new leader gives every lease its whole TTL:
// the watch then begins anew.
func (g *gathering) watch(ctx context.Context, leases []clientv3.LeaseID) {
	g.Watched = make(map[string]Watched)
	type look struct {
		ttl inventory.TTL
		at  time.Time // when its answer had come
	}
	first := make(map[clientv3.LeaseID]look)
	for begun := time.Now(); len(leases) > 0; {
		asked := time.Now()
		ttls := g.lookUp(ctx, leases)
		for lease, ttl := range ttls {
			if earlier, again := first[lease]; !again || earlier.ttl.Term != ttl.Term {
				first[lease] = look{ttl, time.Now()}
			}
			watched := asked.Sub(first[lease].at)
			passed := int64(watched / time.Second)
			due := time.Duration(ttl.Granted)*time.Second/renewals + betweenLooks
			g.Watched[inventory.LeaseText(lease)] = Watched{ttl, passed > 0 && ttl.Left > first[lease].ttl.Left-passed, ttl.Granted == 0 || watched > due}
		}
		leases = slices.DeleteFunc(leases, func(lease clientv3.LeaseID) bool {
			_, known := ttls[lease]
			watched := g.Watched[inventory.LeaseText(lease)]
			return !known || watched.Renewed || watched.Through
		})
		if len(leases) == 0 || time.Since(begun) > longestWatch-betweenLooks || backoff.Sleep(ctx, betweenLooks, nil) != nil {
			return
		}
	}
}

// formerLeases finds leases that had a key before its present one, are alive and have no key left. A server that
// died and was started again leaves such a lease behind until it ends; whoever renews one may wait for the key.
// What there is no time for is left out.
func (g *gathering) formerLeases(ctx context.Context) {
	rows := g.rowsWhere(func(row *inventory.Instance) bool {
		return usable(row) && row.Lease != "" && row.ModRevision > row.CreateRevision
	})
	slices.SortFunc(rows, func(a, b inventory.Instance) int { return cmp.Compare(b.ModRevision, a.ModRevision) })
	rows = rows[:min(len(rows), keysBack)]
	ctx, cancel := context.WithTimeout(ctx, listing*g.opts.Timeout)
	defer cancel()
	g.emptied = make(map[string]clientv3.LeaseID)
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	slots := make(chan struct{}, readsAtOnce)
	for _, row := range rows {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			lease, err := g.formerLease(ctx, row)
			mu.Lock()
			defer mu.Unlock()
			failed = cmp.Or(failed, err)
			if lease != clientv3.NoLease {
				g.emptied[row.Key] = lease
			}
		})
	}
	wg.Wait()
	if failed != nil {
		g.miss("earlier leases of keys", failed)
	}
}

// formerLease returns the lease that had a key before its present one, if it is alive and has no key.
func (g *gathering) formerLease(ctx context.Context, row inventory.Instance) (clientv3.LeaseID, error) {
	for revision, n := row.ModRevision, 0; revision > row.CreateRevision && n < writesBack; n++ {
		resp, err := g.opts.Client.Get(ctx, row.Key, clientv3.WithRev(revision-1)) // etcd 3.7 has no lease in keys alone
		if errors.Is(err, rpctypes.ErrCompacted) || err == nil && len(resp.Kvs) == 0 {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		revision = resp.Kvs[0].ModRevision
		lease := clientv3.LeaseID(resp.Kvs[0].Lease)
		if lease == clientv3.NoLease || inventory.LeaseText(lease) == row.Lease {
			continue
		}
		held, err := g.opts.Client.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())
		if err != nil || held.TTL <= 0 || len(held.Keys) > 0 { // keys that may not be read are an error
			return 0, nil
		}
		return lease, nil
	}
	return 0, nil
}
