// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/rollcall-grpc/rollcall/balancer/weighted"
	"github.com/rollcall-grpc/rollcall/balancer/zone"
)

// bar is a limit that Rollcall must not exceed.
type bar struct {
	what     string
	most     float64
	unit     string
	measured float64
}

func (b bar) met() bool { return b.measured <= b.most }

// limited is a metric that has a limit, or whose ratio to that of another subject has.
type limited struct {
	what, scenario, metric string
	most                   float64
	unit                   string
	over                   string // a subject, or "" for the metric itself
	subject                string // default Rollcall
}

// limits are the bars of the whole grid, so that no change moves a cost from a place that is
// measured to one that is not.
var limits = []limited{
	{"lone change, one endpoint: delay after the raw event, p50", "lone/1", "more, p50", 50, "us", "", ""},
	{"lone change, one endpoint: over the raw event", "lone/1", "ratio", 1.15, "", "", ""},
	{"lone change, 1,000 endpoints: delay after the raw event, p50", "lone/1000", "more, p50", 80, "us", "", ""},
	{"lone change, 1,000 endpoints: over the raw event", "lone/1000", "ratio", 1.15, "", "", ""},
	{"lone change, 10,000 endpoints: delay after the raw event, p50", "lone/10000", "more, p50", 250, "us", "", ""},
	{"lone change, 10,000 endpoints: over the raw event", "lone/10000", "ratio", 1.15, "", "", ""},
	{"change after change, one endpoint: over the raw event", "closed/1", "ratio", 1.2, "", "", ""},
	{"change after change, 1,000 endpoints: over the raw event", "closed/1000", "ratio", 1.2, "", "", ""},
	{"change after change, 10,000 endpoints: over the raw event", "closed/10000", "ratio", 1.2, "", "", ""},
	{"50 changes a second: p50 over etcd's package", "rate/50", "p50", 1.2, "", theirs, ""},
	{"250 changes a second: p50 over etcd's package", "rate/250", "p50", 1.5, "", theirs, ""},
	{"250 changes a second: p99", "rate/250", "p99", 10, "ms", "", ""},
	{"250 changes a second: CPU over etcd's package", "rate/250", "CPU", 1, "", theirs, ""},
	{"1,000 changes a second: p50", "rate/1000", "p50", 5, "ms", "", ""},
	{"1,000 changes a second: p99", "rate/1000", "p99", 25, "ms", "", ""},
	{"1,000 changes a second: never shown", "rate/1000", "never shown", 1, "%", "", ""},
	{"1,000 changes a second: CPU over etcd's package", "rate/1000", "CPU", 0.6, "", theirs, ""},
	{"250 changes a second under round_robin: p50 over etcd's package", "rate-round_robin/250", "p50", 0.5, "", theirs, ""},
	{"250 changes a second under round_robin: p99 over etcd's package", "rate-round_robin/250", "p99", 0.5, "", theirs, ""},
	{"250 changes a second under round_robin: CPU over etcd's package", "rate-round_robin/250", "CPU", 0.5, "", theirs, ""},
	{"cold start of one over a raw Get", "cold/1", "ratio", 1.3, "", "", ""},
	{"cold start of 100 over a raw Get", "cold/100", "ratio", 1.4, "", "", ""},
	{"cold start of 1,000 over a raw Get", "cold/1000", "ratio", 1.5, "", "", ""},
	{"cold start of 10,000 over a raw Get", "cold/10000", "time", 1.35, "", rawGet, ""},
	{"cold start of 10,000 over a raw Get, in pages", "cold/10000", "time", 1.6, "", rawGet, paged},
	{"cold start of one over a raw Get, ids are names", "cold-names/1", "ratio", 1.3, "", "", ""},
	{"cold start of 100 over a raw Get, ids are names", "cold-names/100", "ratio", 1.4, "", "", ""},
	{"cold start of 1,000 over a raw Get, ids are names", "cold-names/1000", "ratio", 1.5, "", "", ""},
	{"cold start of 10,000 over a raw Get, ids are names", "cold-names/10000", "time", 1.35, "", rawGet, ""},
	{"burst of 10,000 joins: CPU over etcd's package", "burst", "CPU", 1.0 / 30, "", theirs, ""},
	{"burst of 10,000 joins: CPU over a raw watch", "burst", "CPU", 2, "", raw, ""},
	{"burst of 10,000 joins: lag over etcd's package", "burst", "lag", 1.0 / 100, "", theirs, ""},
	{"burst of 2,000 joins under round_robin: CPU over etcd's package", "round_robin", "CPU", 1.0 / 40, "", theirs, ""},
	{"burst of 2,000 joins under round_robin: lag over etcd's package", "round_robin", "lag", 1.0 / 100, "", theirs, ""},
	{"rollout at 10,000 under round_robin", "rollout", "CPU", 40, "% of a core", "", ""},
	{"1,000 channels to one service: watches, beside the one for all service configs", "channels/1", "watches", 1, "", "", ""},
	{"1,000 channels to one service: heap and stack", "channels/1", "memory", 5, "KiB a channel", "", ""},
	{"1,000 channels to one service: ready, over etcd's package", "channels/1", "ready", 1.0 / 50, "", theirs, ""},
	{"2,000 services: heap and stack", "services", "memory", 12, "KiB a service", "", ""},
	{"2,000 services: heap and stack, over etcd's package", "services", "memory", 1.05, "", theirs, ""},
	{"2,000 services: goroutines", "services", "goroutines", 2.1, "a service", "", ""},
	{"2,000 services: watches", "services", "watches a service", 1.01, "a service", "", ""},
	{"2,000 services: ready, over etcd's package", "services", "ready", 0.3, "", theirs, ""},
	{"500 services of 20: heap and stack, over etcd's package", "services/20", "memory", 1.05, "", theirs, ""},
	{"500 services of 20: ready, over etcd's package", "services/20", "ready", 0.5, "", theirs, ""},
	{"100 services of 200: heap and stack, over etcd's package", "services/200", "memory", 1.05, "", theirs, ""},
	{"100 services of 200: ready, over etcd's package", "services/200", "ready", 0.8, "", theirs, ""},
	{"2,000 services and a restart: time over etcd's package", "restart", "time", 1, "", theirs, ""},
	{"2,000 services and a restart: CPU over etcd's package", "restart", "CPU", 1.1, "", theirs, ""},
	{"2,000 services and a restart: CPU", "restart", "CPU", 250, "ms", "", ""},
	{"2,000 services and a restart: messages", "restart", "messages", 2050, "", "", ""},
	{"1,000 connections: ready, over an instant resolver", "connections", "ready", 1.1, "", instant, ""},
	{"1,000 connections: memory, over an instant resolver", "connections", "memory", 1.1, "", instant, ""},
	{"1,000 puts that change nothing: states", "again", "states", 0, "", "", ""},
	{"registering 10,000: time over etcd's package", "registering", "register", 0.3, "", theirs, ""},
	{"10,000 registered, idle: messages", "registered", "messages", 1, "a second", "", ""},
	{"10,000 registered, idle: messages, the Directory closed", "registered", "messages", 1, "a second", "", unwatched},
	{"10,000 registered, idle: keepalives", "registered", "keepalives", 0.45, "a second (one lease: 0.3)", "", ""},
	{"xDS, one change, 1,000 endpoints, 100 streams: CPU over LinearCache", "xds/1x1000x100", "CPU", 1.1, "", linear, ""},
	{"xDS, one change, 1,000 endpoints, 100 streams: time over LinearCache", "xds/1x1000x100", "time", 1.25, "", linear, ""},
	{"xDS, one change, 1,000 endpoints, 1,000 streams: CPU over LinearCache", "xds/1x1000x1000", "CPU", 1.1, "", linear, ""},
	{"xDS, one change, 1,000 endpoints, 1,000 streams: time over LinearCache", "xds/1x1000x1000", "time", 1.25, "", linear, ""},
	{"xDS, one change, 1,000 endpoints, 1,000 streams: heap and stack", "xds/1x1000x1000", "memory", 40, "KiB a stream", "", ""},
	{"xDS, one change among 100 services, 5,000 streams: CPU over LinearCache", "xds/100x10x5000", "CPU", 1.1, "", linear, ""},
	{"xDS, one change among 100 services, 5,000 streams: time over LinearCache", "xds/100x10x5000", "time", 1.25, "", linear, ""},
	{"xDS, one change among 100 services, 5,000 streams: heap and stack", "xds/100x10x5000", "memory", 40, "KiB a stream", "", ""},
	{"xDS, 100 changes a second: bytes, over one response a change", "xds/burst", "bytes", 20, "%", "", ""},
	{"xDS, 100 changes a second: CPU", "xds/burst", "CPU", 50, "% of a core", "", ""},
	{"xDS, 100 changes a second: a new stream's first answer, p50", "xds/burst", "first answer, p50", 5, "ms", "", ""},
	{"decode", "decode", "time", 200, "ns", "", ""},
	{"decode", "decode", "allocations", 1, "allocations", "", ""},
}

// whyMissed explains why bars that are near may be missed.
var whyMissed = map[string]string{
	"cold start of one over a raw Get":                                coldOfOne,
	"cold start of one over a raw Get, ids are names":                 coldOfOne,
	"burst of 2,000 joins under round_robin: lag over etcd's package": "gRPC takes 50 to 80 ms for each state of so many, and the last change may come while it is busy with the one before",
}

// why explains why a bar is missed. What explains a near miss explains no other.
func (b bar) why() string {
	why := whyMissed[b.what]
	if why == "" || b.measured > 1.25*b.most {
		return "no reason known"
	}
	return why
}

const coldOfOne = "a new client's first service asks for the service configs in the same request, which takes etcd a tenth longer than a Get"

// bars returns the bars that the run has measured.
func (r *results) bars() (bars []bar) {
	for _, l := range slices.Concat(limits, pickLimits(10, 1000, 10_000)) {
		measured := r.median(l.scenario, cmp.Or(l.subject, ours), l.metric)
		if l.over != "" {
			measured /= r.median(l.scenario, l.over, l.metric)
		}
		if !math.IsNaN(measured) {
			bars = append(bars, bar{l.what, l.most, l.unit, measured})
		}
	}
	return bars
}

func pickLimits(sizes ...int) (all []limited) {
	for _, n := range sizes {
		name := fmt.Sprintf("picks/%d", n)
		for _, policy := range []string{weighted.Name, zone.Name} {
			what, most := "a pick of "+policy+", "+thousands(n), 1.3
			if policy == zone.Name {
				most = 2.5 // it counts each pick for its metrics: 1 to 5 ns, depending on the processor
			}
			all = append(all, limited{what + ": over round_robin", name, "time", most, "", "round_robin", policy},
				limited{what, name, "allocations", 0, "allocations", "", policy})
		}
	}
	return all
}
