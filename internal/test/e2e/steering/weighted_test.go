// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"testing"

	_ "google.golang.org/grpc/health" // client-side health checks
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func TestWeights(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("a", "b", "c")
	for name, weight := range map[string]int{"a": 1, "b": 2, "c": 7} {
		f.put(name, map[string]any{"weight": weight})
	}
	conn := f.dial("etcd:///svc", policy("rollcall_weighted", "{}"))
	f.becomes(conn, 100, 0.1, map[string]float64{"a": 0.1, "b": 0.2, "c": 0.7}) // all are connected
	got, failed := f.shares(conn, 10_000)
	if off := differs(got, map[string]float64{"a": 0.1, "b": 0.2, "c": 0.7}, 0.02); off != "" || failed > 0 {
		t.Errorf("%v, %d failed: %s", got, failed, off)
	}
	connections := f.accepts.Load()
	f.put("c", map[string]any{"weight": 1})
	took := f.becomes(conn, 100, 0.02, map[string]float64{"a": 0.25, "b": 0.5, "c": 0.25})
	t.Logf("shares of 1:2:7 in 10,000 calls: %v; a changed weight was in force after %v", got, took)
	if n := f.accepts.Load() - connections; n != 0 {
		t.Errorf("a change of weights made %d connections", n)
	}
	f.put("c", map[string]any{"weight": 0}) // no weight: as without
	f.put("b", map[string]any{"status": "draining", "weight": 2})
	f.becomes(conn, 100, 0.02, map[string]float64{"a": 0.5, "c": 0.5})
}

// Weighted children watch health as round_robin's do.
func TestWeightsAndHealth(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("a", "b")
	f.put("a", map[string]any{"weight": 3})
	f.put("b", nil)
	conn := f.dial("etcd:///svc", `{"loadBalancingConfig":[{"rollcall_weighted":{}}],"healthCheckConfig":{"serviceName":""}}`)
	f.becomes(conn, 100, 0.02, map[string]float64{"a": 0.75, "b": 0.25})
	f.servers["a"].health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	f.becomes(conn, 100, 0.001, map[string]float64{"b": 1})
	f.servers["a"].health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	f.becomes(conn, 100, 0.02, map[string]float64{"a": 0.75, "b": 0.25})
}
