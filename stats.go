// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"slices"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// Stats are the figures of a Directory.
type Stats struct {
	// Now.
	Services   int        // followed: one watch each
	Stale      int        // of them, those whose snapshot is stale
	Waiting    int        // of them, those that have no snapshot yet
	Views      int        // of many services, followed: one watch each, besides those of Services
	KeyWatches int        // of single keys, by Registrars
	Fallbacks  int        // remembered without a subscriber
	Retained   int        // instances retained by SelfPreservation
	Outage     *Staleness // since when and why etcd cannot be reached; nil: it can, as far as is known

	// Since the Directory was made.
	Totals
	Latency         Histogram // from the receipt of a change to each subscriber that is given it
	Lists           uint64    // lists begun
	Watches         uint64    // watches opened
	Inconsistencies uint64    // snapshots found to differ from etcd, and mended
	Epochs          int       // times that etcd was found to have a new epoch

	// ListsBy has Lists by what they were for: "start", "request" (List and ListPrefix), "check"
	// (consistency checks), or why a watch could not go on: "compacted", "new_epoch",
	// "inconsistent", "refused". None is missing.
	ListsBy map[string]uint64
	// RestartsBy has the watches that ended and were to be opened anew, by why: "compacted",
	// "new_epoch", "inconsistent", "refused", "token_refused", "stream_replaced" (it was silent, or
	// another watch was refused for its token) or "disconnected", for everything else. None is
	// missing.
	RestartsBy map[string]uint64
}

// ServiceState is whether what a Directory has of a service follows etcd.
type ServiceState string

// The states of a service that is followed.
const (
	ServiceCurrent ServiceState = "current" // its snapshot follows etcd
	ServiceStale   ServiceState = "stale"   // its snapshot may not: see Snapshot.Staleness
	ServiceWaiting ServiceState = "waiting" // it has no snapshot yet
)

// ServiceStats are the figures of one service that a Directory follows.
type ServiceStats struct {
	Prefix      string // of the keys that are followed, "<service>/" or what was asked for
	Service     string // "" for a view of many services
	Subscribers int
	Snapshot    *Snapshot // the latest; nil before the first
	Err         error     // why there is none yet
	State       ServiceState
	Since       time.Time      // since when it has been stale or waiting; zero while it is current
	Instances   InstanceCounts // of Snapshot, with the address policy HostPort

	// Since the service was first subscribed to.
	Totals
}

// Histogram is a distribution of durations.
type Histogram struct {
	Count   uint64
	Sum     time.Duration
	Buckets []Bucket // by their bounds; those that took longer are in Count alone
}

// Bucket is how many took as long as a bound at most.
type Bucket struct {
	Bound time.Duration
	Count uint64
}

// Stats returns the Directory's figures.
func (d *Directory) Stats() Stats {
	stats, _ := d.stats()
	return stats
}

// ServiceStats returns the figures of the services that are followed now, sorted by prefix.
func (d *Directory) ServiceStats() []ServiceStats {
	_, services := d.AllStats()
	return services
}

// AllStats returns Stats and ServiceStats as of one moment: the Totals of Stats are the sum of
// the services', and of those that are not followed any more.
func (d *Directory) AllStats() (Stats, []ServiceStats) {
	stats, informers := d.stats()
	services := make([]ServiceStats, 0, len(informers))
	for in, s := range informers {
		s.Subscribers, s.Err = in.store.topic.Count(), in.store.topic.Why()
		if s.Snapshot != nil {
			s.Instances = in.store.tally.count(s.Snapshot)
		}
		services = append(services, s)
	}
	slices.SortFunc(services, func(a, b ServiceStats) int { return strings.Compare(a.Prefix, b.Prefix) })
	return stats, services
}

// stats returns the Directory's figures, and of each service those that they are made of.
func (d *Directory) stats() (Stats, map[*informer]ServiceStats) {
	status, _ := d.group.Monitor().Status()
	counters := d.group.Counters()
	s := Stats{
		Latency:         histogram(&d.latency),
		Lists:           counters.Lists,
		Watches:         counters.Watches,
		Inconsistencies: counters.Inconsistencies,
		Epochs:          status.Epoch - 1,
		ListsBy:         byCause(counters.ListsBy, reflector.Start, reflector.Refused),
		RestartsBy:      byCause(counters.RestartsBy, reflector.Compacted, reflector.Disconnected),
	}
	if status.Outage != nil {
		s.Outage = &Staleness{Since: status.Outage.Since, Cause: status.Outage.Cause}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Totals, s.Fallbacks = d.ended, len(d.fallbacks.memory)
	services := make(map[*informer]ServiceStats, len(d.informers))
	for keys, in := range d.informers {
		if keys.IsSingleKey() {
			s.KeyWatches++
			continue
		}
		service := in.stats()
		s.count(service)
		if service.Snapshot != nil {
			s.Retained += len(service.Snapshot.retained)
		}
		s.Totals = s.Totals.Plus(service.Totals)
		services[in] = service
	}
	return s, services
}

// count counts what is followed: a service by its state, or a view.
func (s *Stats) count(service ServiceStats) {
	if service.Service == "" {
		s.Views++
		return
	}
	s.Services++
	switch service.State {
	case ServiceWaiting:
		s.Waiting++
	case ServiceStale:
		s.Stale++
	}
}

// stats returns what a Directory's own figures are made of.
func (in *informer) stats() ServiceStats {
	s := ServiceStats{Prefix: in.prefix(), Service: in.service(), State: ServiceWaiting, Since: in.began, Snapshot: in.store.topic.Latest(), Totals: in.store.totals()}
	switch {
	case s.Snapshot == nil:
	case s.Snapshot.stale == nil:
		s.State, s.Since = ServiceCurrent, time.Time{}
	default:
		s.State, s.Since = ServiceStale, s.Snapshot.stale.Since
	}
	return s
}

func byCause(counts reflector.Causes, from, to reflector.Cause) map[string]uint64 {
	by := make(map[string]uint64)
	for cause := from; cause <= to; cause++ {
		by[cause.String()] = counts[cause]
	}
	return by
}

func histogram(l *topic.Latency) Histogram {
	counts, sum := l.Load()
	h := Histogram{Sum: sum, Buckets: make([]Bucket, len(topic.Bounds))}
	for i, n := range counts {
		if h.Count += n; i < len(topic.Bounds) {
			h.Buckets[i] = Bucket{topic.Bounds[i], h.Count}
		}
	}
	return h
}
