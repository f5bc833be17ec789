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
	{"A lone change among 1,000 endpoints, until it is shown, p50", "lone/1000", "since the put, p50", "us"},
	{"250 changes a second to 1,000 endpoints: until shown, p50", "rate/250", "p50", "ms"},
	{"the same: CPU", "rate/250", "CPU", "cores"},
	{"1,000 changes a second to 1,000 endpoints: until shown, p99", "rate/1000", "p99", "ms"},
	{"the same: CPU", "rate/1000", "CPU", "cores"},
	{"Cold start of one endpoint", "cold/1", "time", "ms"},
	{"Cold start of 10,000 endpoints", "cold/10000", "time", "ms"},
	{"A burst of 10,000 joins: CPU", "burst", "CPU", "ms"},
	{"the same: from the last one until all are shown", "burst", "lag", "ms"},
	{"A burst of 2,000 joins under gRPC's round_robin: CPU", "round_robin", "CPU", "ms"},
	{"the same: from the last one until all are shown", "round_robin", "lag", "ms"},
	{"1,000 channels to one service of 100, until all are ready", "channels/1", "ready", "ms"},
	{"2,000 services of 5, a channel each: heap and stack", "services", "memory", "KiB a service"},
	{"the same, after a restart of etcd: until all follow again", "restart", "time", "ms"},
	{"the same, after a restart of etcd: CPU", "restart", "CPU", "ms"},
	{"Heap of 10,000 endpoints", "memory/10000", "memory", "bytes an endpoint"},
	{"10,000 endpoints registered by one process", "registering", "register", "ms"},
}

// summary returns the table of those that the run has measured, "" without any.
func (r *results) summary() string {
	var b strings.Builder
	for _, c := range compared {
		its, mine := r.median(c.scenario, theirs, c.metric), r.median(c.scenario, ours, c.metric)
		if math.IsNaN(its) || math.IsNaN(mine) {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.what, figure(its, c.unit), figure(mine, c.unit), figure(mine/its, ""))
	}
	if b.Len() == 0 {
		return ""
	}
	return "## Beside etcd's package\n\nWhat the import costs or saves; the scenarios are below.\n\n" +
		"| | etcd's package | Rollcall | Rollcall over etcd's package |\n|---|---|---|---|\n" + b.String() + "\n"
}
