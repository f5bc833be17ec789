// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	estats "google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/stats/opentelemetry"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

// grpcMetrics are the metrics that Rollcall records through gRPC.
var grpcMetrics = []string{"rollcall.lb.zone.picks", "rollcall.lb.zone.share", "rollcall.lb.weighted.endpoints", "rollcall.lb.weighted.ready_endpoints",
	"rollcall.resolver.updates", "rollcall.resolver.errors"}

// grpcValues returns what a reader finds of Rollcall's: name, and distance if any.
func grpcValues(t *testing.T, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if !strings.HasPrefix(m.Name, "rollcall.") {
				continue
			}
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, point := range points {
				if target, _ := point.Attributes.Value("grpc.target"); target.AsString() != "etcd:///svc" {
					t.Errorf("%s of target %q", m.Name, target.AsString())
				}
				distance, _ := point.Attributes.Value("rollcall.lb.distance")
				values[strings.TrimSpace(m.Name+" "+distance.AsString())] = point.Value
			}
		}
	}
	return values
}

// The policies and the resolver record through gRPC's own metrics what only they know.
func TestGRPCMetrics(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.zoned(2, "a", "b")
	reader := metric.NewManualReader()
	conn := f.dial("etcd:///svc", policy("rollcall_zone", `{"zone":"a","childPolicy":[{"rollcall_weighted":{}}]}`),
		opentelemetry.DialOption(opentelemetry.Options{MetricsOptions: opentelemetry.MetricsOptions{
			MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), Metrics: stats.NewMetricSet(grpcMetrics...)}}))
	becomes := func(when string, want map[string]int64) {
		t.Helper()
		got := grpcValues(t, reader)
		for began := time.Now(); time.Since(began) < lab.WaitMost; got = grpcValues(t, reader) {
			same := true
			for name, value := range want {
				same = same && got[name] == value
			}
			if same {
				return
			}
			_, _ = lab.Call(t, conn)
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s: %v, want %v", when, got, want)
	}
	if _, failed := f.shares(conn, 100); failed > 0 {
		t.Errorf("%d calls failed", failed)
	}
	becomes("with all healthy", map[string]int64{"rollcall.lb.zone.share 0": 100,
		"rollcall.lb.weighted.endpoints": 2, "rollcall.lb.weighted.ready_endpoints": 2, "rollcall.resolver.errors": 0})
	before := grpcValues(t, reader)
	if picks, other := before["rollcall.lb.zone.picks 0"], before["rollcall.lb.zone.picks 2"]; picks < 100 || picks > 1000 || other != 0 {
		t.Errorf("%d picks in the zone and %d in the other of 100 calls", picks, other)
	}

	f.servers["a-0"].grpc.Stop() // 1/(0.9*1.67) stay
	becomes("with half of the zone dead", map[string]int64{"rollcall.lb.zone.share 0": 67, "rollcall.lb.zone.share 2": 33,
		"rollcall.lb.weighted.endpoints": 4, "rollcall.lb.weighted.ready_endpoints": 3})
	f.shares(conn, 100)
	if picks := grpcValues(t, reader)["rollcall.lb.zone.picks 2"]; picks < 20 {
		t.Errorf("%d picks in the other zone of 100 calls", picks)
	}

	updates := grpcValues(t, reader)["rollcall.resolver.updates"]
	for name := range f.servers {
		f.remove(name)
	}
	for began := time.Now(); grpcValues(t, reader)["rollcall.resolver.errors"] == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > lab.WaitMost {
			t.Fatal("no error is recorded when the last endpoint has left")
		}
	}
	if now := grpcValues(t, reader)["rollcall.resolver.updates"]; now <= updates {
		t.Errorf("%d updates, were %d", now, updates)
	}
	conn.Close()
	becomes("closed", map[string]int64{"rollcall.lb.zone.share 0": 0, "rollcall.lb.zone.share 2": 0,
		"rollcall.lb.weighted.endpoints": 0, "rollcall.lb.weighted.ready_endpoints": 0})
}

// docs/metrics.md has a row for each of them, with its unit and labels, and they are off by default.
func TestGRPCMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range grpcMetrics {
		d := estats.DescriptorForMetric(name)
		if d == nil {
			t.Errorf("%s is not registered", name)
			continue
		}
		if d.Default {
			t.Errorf("%s is on by default", name)
		}
		if row := "| `" + name + "` | `" + d.Unit + "` |"; !strings.Contains(string(text), row) || !strings.Contains(string(text), "`"+strings.Join(d.Labels, "`, `")+"`") {
			t.Errorf("docs/metrics.md has no row %s", row)
		}
	}
}
