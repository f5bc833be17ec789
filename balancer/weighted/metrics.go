// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package weighted

import (
	"sync"

	estats "google.golang.org/grpc/experimental/stats"
)

// Metrics of gRPC's own (gRFC A79), off unless a program asks for them.
var (
	endpointsMetric = estats.RegisterInt64UpDownCount(estats.MetricDescriptor{
		Name:        "rollcall.lb.weighted.endpoints",
		Description: "EXPERIMENTAL. Endpoints that calls are divided among, connected or not.",
		Unit:        "{endpoint}",
		Labels:      []string{"grpc.target"},
	})
	readyMetric = estats.RegisterInt64UpDownCount(estats.MetricDescriptor{
		Name:        "rollcall.lb.weighted.ready_endpoints",
		Description: "EXPERIMENTAL. Endpoints that are connected and get calls, as of the first call after a change.",
		Unit:        "{endpoint}",
		Labels:      []string{"grpc.target"},
	})
)

// level is one policy's part of an up-down counter, which several policies of a target add up to.
type level struct {
	metric   *estats.Int64UpDownCountHandle
	recorder estats.MetricsRecorder
	target   string

	mu         sync.Mutex
	is         int
	generation int // of the latest set or later
	closed     bool
}

// set sets the level.
func (l *level) set(n int) {
	l.later()(n)
}

// later returns a function that sets the level unless it has been set, or later or close been
// called, in the meantime.
func (l *level) later() func(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	own := l.generation
	return func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if own == l.generation {
			l.recordLocked(n)
		}
	}
}

// close takes back what was recorded, for good.
func (l *level) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recordLocked(0)
	l.closed = true
}

func (l *level) recordLocked(n int) {
	if n != l.is && !l.closed {
		l.metric.Record(l.recorder, int64(n-l.is), l.target)
		l.is = n
	}
}
