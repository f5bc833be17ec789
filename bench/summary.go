// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strings"
)

// compared are the figures of the summary: what users of etcd's package ask first, whoever is ahead.
var compared = []struct{ what, scenario, metric, unit string }{
	{"A lone change of a service of one, until it is shown, p50", "lone/1", "since the put, p50", "us"},
	{"A lone change among 1,000 endpoints, until it is shown, p50", "lone/1000", "since the put, p50", "us"},
	{"One change a second among 1,000 endpoints: CPU", "rate/1", "CPU", "cores"},
	{"250 changes a second among 1,000 endpoints: until shown, p50", "rate/250", "p50", "ms"},
	{"250 changes a second among 1,000 endpoints: CPU", "rate/250", "CPU", "cores"},
	{"1,000 changes a second among 1,000 endpoints: until shown, p99", "rate/1000", "p99", "ms"},
	{"1,000 changes a second among 1,000 endpoints: CPU", "rate/1000", "CPU", "cores"},
	{"Cold start with one endpoint, its address as id", "cold/1", "time", "ms"},
	{"Cold start with one endpoint, a name as id", "cold-names/1", "time", "ms"},
	{"Cold start with 100 endpoints, names as ids", "cold-names/100", "time", "ms"},
	{"Cold start with 10,000 endpoints, names as ids", "cold-names/10000", "time", "ms"},
	{"A burst of 10,000 joins: CPU", "burst", "CPU", "ms"},
	{"A burst of 10,000 joins: from the last one until all are shown", "burst", "lag", "ms"},
	{"A burst of 2,000 joins under gRPC's round_robin: CPU", "round_robin", "CPU", "ms"},
	{"A burst of 2,000 joins under gRPC's round_robin: from the last one until all are shown", "round_robin", "lag", "ms"},
	{"1,000 channels to one service of 100, until all are ready", "channels/1", "ready", "ms"},
	{"A channel each to 2,000 services of 5: heap and stack", "services", "memory", "KiB a service"},
	{"2,000 services, after a restart of etcd: until all follow again", "restart", "time", "ms"},
	{"2,000 services, after a restart of etcd: CPU", "restart", "CPU", "ms"},
	{"Heap of 10,000 endpoints", "memory/10000", "memory", "bytes an endpoint"},
	{"10,000 endpoints registered by one process", "registering", "register", "ms"},
}

// summary returns the table of those that the run has measured, "" without any.
func (r *results) summary() string {
	var b strings.Builder
	for _, c := range compared {
		o := r.of(c.scenario)
		if o == nil || o.of(theirs) == nil || o.of(ours) == nil {
			continue
		}
		its, mine := o.of(theirs), o.of(ours)
		over := mine.median(c.metric) / its.median(c.metric)
		if its.Unended {
			over = math.NaN()
		}
		ratio := figure(over, "")
		if !math.IsNaN(over) && !its.apart(mine, c.metric) && !mine.apart(its, c.metric) {
			ratio += ", within the noise"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.what, figure(its.median(c.metric), c.unit), figure(mine.median(c.metric), c.unit), ratio)
	}
	if b.Len() == 0 {
		return ""
	}
	return "## Beside etcd's package\n\nMedians of the scenarios below. Within the noise are those whose quartiles overlap; – did not finish in time. An idle client sends etcd 12 messages a minute, by which it notices that its watches are dead; one of etcd's package sends none.\n\n" +
		"| | etcd's package | Rollcall | Rollcall over etcd's package |\n|---|---|---|---|\n" + b.String() + "\n"
}
