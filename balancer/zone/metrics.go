// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"math"
	"strconv"

	"google.golang.org/grpc/balancer"
	estats "google.golang.org/grpc/experimental/stats"

	"github.com/rollcall-grpc/rollcall/internal/spread"
)

// Metrics of gRPC's own (gRFC A79), off unless a program asks for them.
var (
	picksMetric = estats.RegisterInt64Count(estats.MetricDescriptor{
		Name:        "rollcall.lb.zone.picks",
		Description: "EXPERIMENTAL. Picks by the distance of the endpoint's locality from the caller's, 0 to 3.",
		Unit:        "{pick}",
		Labels:      []string{"grpc.target", "rollcall.lb.distance"},
	})
	shareMetric = estats.RegisterInt64Gauge(estats.MetricDescriptor{
		Name:        "rollcall.lb.zone.share",
		Description: "EXPERIMENTAL. Share of the calls that is to go to endpoints at a distance from the caller, 0 to 3. What is not at the least one spills over. Channels with one target share it: the last to change counts.",
		Unit:        "%",
		Labels:      []string{"grpc.target", "rollcall.lb.distance"},
	})
)

// metricLabels returns the labels of a group, by its index in policy.groups.
func metricLabels(target string, group int) []string {
	return []string{target, strconv.Itoa(levels - group)}
}

// recordShareLocked records a share of the group if it differs by a percent from the last.
func (g *group) recordShareLocked(share uint32) {
	percent := int64(math.Round(float64(share) * 100 / spread.MaxRatio))
	if percent != g.recorded {
		g.recorded = percent
		shareMetric.Record(g.policy.cc.MetricsRecorder(), percent, g.labels...)
	}
}

// countedPicker counts the picks of a group.
type countedPicker struct {
	balancer.Picker
	recorder estats.MetricsRecorder
	labels   []string
}

func (p *countedPicker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	result, err := p.Picker.Pick(info)
	if err == nil {
		picksMetric.Record(p.recorder, 1, p.labels...)
	}
	return result, err
}

// counted returns a picker that counts the group's picks.
func (g *group) counted(picker balancer.Picker) balancer.Picker {
	return &countedPicker{picker, g.policy.cc.MetricsRecorder(), g.labels}
}
