// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"testing"

	"google.golang.org/grpc/balancer"
	estats "google.golang.org/grpc/experimental/stats"
)

type fixedPicker struct{}

func (fixedPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, nil
}

// recorder counts without keeping anything.
type recorder struct {
	estats.UnimplementedMetricsRecorder
	picks int64
}

func (r *recorder) RecordInt64Count(h *estats.Int64CountHandle, n int64, labels ...string) {
	if h == picksMetric && len(labels) == 2 {
		r.picks += n
	}
}

// A pick that is counted allocates nothing of its own.
func TestCountedPickAllocatesNothing(t *testing.T) {
	r := new(recorder)
	p := &countedPicker{fixedPicker{}, r, metricLabels("etcd:///svc", levels)}
	if n := testing.AllocsPerRun(1000, func() { _, _ = p.Pick(balancer.PickInfo{}) }); n > 0 {
		t.Errorf("%v allocations a pick", n)
	}
	if r.picks != 1001 {
		t.Errorf("%d picks counted, want 1001", r.picks)
	}
}

func BenchmarkPick(b *testing.B) {
	for name, p := range map[string]balancer.Picker{"plain": fixedPicker{}, "counted": &countedPicker{fixedPicker{}, new(recorder), metricLabels("etcd:///svc", 0)}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.Pick(balancer.PickInfo{})
			}
		})
	}
}
