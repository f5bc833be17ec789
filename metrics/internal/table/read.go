// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"strings"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// DefaultMaxServices is how many services are told apart unless an option says otherwise.
const DefaultMaxServices = 1000

// Other stands for all services beyond the limit, and for those that are not followed any more.
const Other = "other"

// Source is what the metrics are of.
type Source struct {
	Directory   *rollcall.Directory // nil: none
	Registrars  []*rollcall.Registrar
	MaxServices int // that are told apart at a time, the first to be seen; 0: none are

	mu        sync.Mutex
	toldApart map[string]bool // of each service that is followed, by prefix, whether it is
}

// Sample is a value of a metric.
type Sample struct {
	*Metric
	Of    string // the service; "" where they are not told apart
	By    string // value of Label
	Value float64
}

// Read returns the present values. Of each pair of a metric and its labels there is one.
func (s *Source) Read() (samples []Sample, latency rollcall.Histogram) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(m *Metric, by string, value float64) { samples = append(samples, Sample{m, "", by, value}) }
	if s.Directory != nil {
		stats, services := s.Directory.AllStats()
		latency = stats.Latency
		readDirectory(stats, add)
		for _, row := range s.rows(stats, services) {
			row.read(func(m *Metric, by string, value float64) { samples = append(samples, Sample{m, row.name, by, value}) })
		}
	}
	if len(s.Registrars) > 0 {
		s.readRegistrars(add)
	}
	return samples, latency
}

type adder func(m *Metric, by string, value float64)

func readDirectory(s rollcall.Stats, add adder) {
	add(Services, string(rollcall.ServiceCurrent), float64(s.Services-s.Stale-s.Waiting))
	add(Services, string(rollcall.ServiceStale), float64(s.Stale))
	add(Services, string(rollcall.ServiceWaiting), float64(s.Waiting))
	addAll(Lists, s.ListsBy, add)
	addAll(WatchRestarts, s.RestartsBy, add)
	add(WatchOpens, "", float64(s.Watches))
	add(Differences, "", float64(s.Inconsistencies))
	outage := 0.0
	if s.Outage != nil {
		outage = time.Since(s.Outage.Since).Seconds()
	}
	add(Outage, "", outage)
	add(Epochs, "", float64(s.Epochs))
	add(Views, "", float64(s.Views))
	add(KeyWatches, "", float64(s.KeyWatches))
	add(Remembered, "", float64(s.Fallbacks))
}

func addAll(m *Metric, counts map[string]uint64, add adder) {
	for by, n := range counts {
		add(m, by, float64(n))
	}
}

func (s *Source) readRegistrars(add adder) {
	phases := make(map[rollcall.Phase]int)
	var all rollcall.RegistrarStats
	for _, r := range s.Registrars {
		stats := r.Stats()
		for phase, n := range stats.Phases {
			phases[phase] += n
		}
		all.Leases += stats.Leases
		all.Renewals += stats.Renewals
		all.LeasesExpired += stats.LeasesExpired
		all.LeasesUnrenewed += stats.LeasesUnrenewed
		all.LeasesReplaced += stats.LeasesReplaced
		all.Writes += stats.Writes
		all.WriteFailures += stats.WriteFailures
	}
	for _, phase := range []rollcall.Phase{rollcall.Registering, rollcall.Registered, rollcall.Draining, rollcall.Lost} {
		add(Registrations, phase.String(), float64(phases[phase]))
	}
	add(LeaseGrants, "", float64(all.Leases))
	add(LeaseRenewals, "", float64(all.Renewals))
	add(LeaseLosses, "expired", float64(all.LeasesExpired))
	add(LeaseLosses, "unrenewed", float64(all.LeasesUnrenewed))
	add(LeaseLosses, "replaced", float64(all.LeasesReplaced))
	add(Writes, "", float64(all.Writes))
	add(WriteFailures, "", float64(all.WriteFailures))
}

// row is the figures of one service, or of several.
type row struct {
	name string
	rollcall.InstanceCounts
	rollcall.Totals
	subscribers int
	staleness   float64
	revision    int64
}

// tellApart decides which services are told apart. What was decided of one stands until it is not
// followed any more: if services were moved to the others and back, counters would go down.
func (s *Source) tellApart(services []rollcall.ServiceStats) {
	decided, free := make(map[string]bool, len(services)), s.MaxServices
	for _, service := range services {
		if apart, ok := s.toldApart[service.Prefix]; ok {
			decided[service.Prefix] = apart
			if apart {
				free--
			}
		}
	}
	for _, service := range services {
		if _, ok := decided[service.Prefix]; !ok {
			decided[service.Prefix] = free > 0
			free--
		}
	}
	s.toldApart = decided
}

// rows returns a row a service, as far as they are told apart, and one for the others.
func (s *Source) rows(stats rollcall.Stats, services []rollcall.ServiceStats) []*row {
	var rows []*row
	byName := make(map[string]*row)
	named := func(name string) *row {
		if byName[name] == nil {
			byName[name] = &row{name: name}
			rows = append(rows, byName[name])
		}
		return byName[name]
	}
	others, rest := "", stats.Totals
	if s.MaxServices > 0 {
		others = Other
	}
	s.tellApart(services)
	for _, service := range services {
		if !s.toldApart[service.Prefix] {
			named(others).add(service)
			continue
		}
		r := named(nameOf(service))
		r.add(service)
		r.Totals = r.Plus(service.Totals)
		rest = rest.Minus(service.Totals)
	}
	if others == "" || rest != (rollcall.Totals{}) || byName[others] != nil {
		r := named(others)
		r.Totals = r.Plus(rest)
	}
	return rows
}

// nameOf returns a service's name, and for a view of many services the prefix of their keys and
// an asterisk.
func nameOf(s rollcall.ServiceStats) string {
	name := s.Service
	if name == "" {
		name = s.Prefix + "*"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}

// add adds a service's present figures.
func (r *row) add(s rollcall.ServiceStats) {
	r.Serving += s.Instances.Serving
	r.Draining += s.Instances.Draining
	r.Invalid += s.Instances.Invalid
	r.Disallowed += s.Instances.Disallowed
	r.Retained += s.Instances.Retained
	r.subscribers += s.Subscribers
	if s.State != rollcall.ServiceCurrent {
		r.staleness = max(r.staleness, time.Since(s.Since).Seconds())
	}
	if s.Snapshot != nil {
		r.revision = max(r.revision, s.Snapshot.Revision())
	}
}

func (r *row) read(add adder) {
	add(Instances, "serving", float64(r.Serving))
	add(Instances, "draining", float64(r.Draining))
	add(Instances, "invalid", float64(r.Invalid))
	add(Instances, "disallowed", float64(r.Disallowed))
	add(Instances, "retained", float64(r.Retained))
	add(Staleness, "", r.staleness)
	add(Revision, "", float64(r.revision))
	add(Subscribers, "", float64(r.subscribers))
	add(Events, "", float64(r.Events))
	add(Updates, "", float64(r.Published))
	add(Conflated, "", float64(r.Conflated))
	add(Preservations, "", float64(r.SelfPreservations))
}
