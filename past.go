// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// defaultHistoryLimit is the default of HistoryOptions.Limit.
const defaultHistoryLimit = 10_000

// Departures returns why instances are no longer in etcd, each as it was last: see Change.Old.
// Etcd is asked once about each lease of those that were not draining; where it does not answer
// within the context, or 5 s, the Departure is unknown.
func (d *Directory) Departures(ctx context.Context, gone ...*Instance) []Departure {
	gone = d.lastValues(gone)
	var leases []clientv3.LeaseID
	for _, inst := range gone {
		if departureOf(inst, inst.Lease, leaseUnknown) == DepartureUnknown {
			leases = append(leases, inst.Lease)
		}
	}
	slices.Sort(leases)
	states := d.leaseStates(ctx, slices.Compact(leases))
	departures := make([]Departure, len(gone))
	for i, inst := range gone {
		departures[i] = departureOf(inst, inst.Lease, states[inst.Lease])
	}
	return departures
}

// lastValues returns what instances were when they went, as far as is known of those that are followed.
func (d *Directory) lastValues(gone []*Instance) []*Instance {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := slices.Clone(gone)
	for keys, in := range d.informers {
		for i, inst := range gone {
			if !keys.IsSingleKey() && strings.HasPrefix(inst.Key, in.prefix()) {
				last[i] = in.store.lastValue(last[i])
			}
		}
	}
	return last
}

// leaseStates asks etcd about leases, within the context, or 5 s for all of them: what is not
// answered by then is unknown.
func (d *Directory) leaseStates(ctx context.Context, leases []clientv3.LeaseID) map[clientv3.LeaseID]leaseState {
	states := make(map[clientv3.LeaseID]leaseState, len(leases))
	if d.usable() != nil {
		return states
	}
	ctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	ttls, _ := etcdkv.TTLs(ctx, d.client, leases)
	for lease, ttl := range ttls {
		states[lease] = leaseGone
		if ttl.Left > 0 {
			states[lease] = leaseAlive
		}
	}
	return states
}

// Seen is where the store stood by the last message of a watch.
type Seen struct {
	Cluster  uint64    // its ID
	Revision int64     // 0: there was no message yet
	At       time.Time // when the message came
}

// Seen returns where the store stood. A member that is up to date tells it every 15 s, or with each
// change, while something is followed.
func (d *Directory) Seen() Seen { return Seen(d.group.Monitor().Seen()) }

// HistoryOptions are the settings of a look into a service's history; the zero value works.
type HistoryOptions struct {
	From  int64 // the revision to begin with. Default: as far back as etcd remembers
	Limit int   // how many events are kept, the newest. Default 10,000
}

// History returns what happened to a service and to its service config, up to the present, as far
// as etcd remembers: its compaction makes it forget. The member that is asked reads all of its
// store from the revision on.
func (d *Directory) History(ctx context.Context, service string, opts HistoryOptions) (*History, error) {
	err := cmp.Or(checkService(service), d.usable())
	if err == nil && (opts.From < 0 || opts.Limit < 0) {
		err = inputError("history options", fmt.Sprintf("%+v", opts), "neither a revision nor a limit is negative")
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of %q: %w", service, err)
	}
	limit := cmp.Or(opts.Limit, defaultHistoryLimit)
	prefix := service + "/"
	endpoints, at, err := d.replay(ctx, etcdkv.Prefix(prefix), prefix, opts.From, limit)
	if err != nil {
		return nil, fmt.Errorf("read the history of %q: %w", service, err)
	}
	endpoints.depart(func(leases []clientv3.LeaseID) map[clientv3.LeaseID]leaseState { return d.leaseStates(ctx, leases) })
	config, since, configErr := d.replay(ctx, etcdkv.SingleKey(ConfigPrefix+service), "", at.First, limit)
	if configErr != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("read the history of %q: %w", service, configErr)
	}
	endpoints.merge(config)
	h := &History{Service: service, Events: endpoints.events, Last: at.Last, Keys: at.Keys, Omitted: endpoints.omitted, Cluster: at.Cluster, ConfigErr: configErr,
		First: max(at.First, since.First), Compacted: at.Compacted || since.Compacted}
	if h.Omitted > 0 {
		h.First, h.Compacted = h.Events[0].Revision, false
	}
	return h, nil
}

// replay reads the history of a range.
func (d *Directory) replay(ctx context.Context, keys etcdkv.KeyRange, prefix string, from int64, limit int) (*history, etcdkv.Replayed, error) {
	h := &history{prefix: prefix, limit: limit}
	at, err := etcdkv.Replay{Client: d.client, Range: keys, Events: h.add, Restart: h.restart}.Read(ctx, from)
	h.trim()
	if err != nil {
		err = fmt.Errorf("read what happened under %q: %w", keys.Key, d.because(ctx, err))
	}
	return h, at, err
}
