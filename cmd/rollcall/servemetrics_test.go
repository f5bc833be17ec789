// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
)

// docs/metrics.md has a row for each metric that the product has, with its type and labels, and
// no other.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(rollcall_[a-z_]+)` (?:\\| `rollcall\\.[^|]*)?\\| ([a-z]+) \\| (?:([^|]*) )?\\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2] + " " + strings.ReplaceAll(strings.ReplaceAll(row[3], "`", ""), " ", "")
	}
	exported := make(map[string]string)
	for _, c := range []prometheus.Collector{rollcallprom.NewCollector(nil, rollcallprom.Options{}), rollcallprom.NewEtcdCalls(), newXDSCollector(nil), newReadyGauge(nil)} {
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for desc := range descs {
			parts := regexp.MustCompile(`fqName: "([^"]*)".*variableLabels: \{([^}]*)\}`).FindStringSubmatch(desc.String())
			kind := "gauge"
			if strings.HasSuffix(parts[1], "_total") {
				kind = "counter"
			} else if parts[1] == "rollcall_update_latency_seconds" {
				kind = "histogram"
			}
			exported[parts[1]] = kind + " " + parts[2]
		}
	}
	for name, want := range exported {
		if got := documented[name]; got != want {
			t.Errorf("%s is documented as %q, want %q", name, got, want)
		}
	}
	for name := range documented {
		if exported[name] == "" {
			t.Errorf("%s is documented, and there is no such metric", name)
		}
	}
}

// /metrics has everything that serve knows, passes promlint, and moves.
func TestServeMetrics(t *testing.T) {
	s := beginServe(t, sharedEtcd(t), "--xds-max-streams", "1", "--metrics-services", "0")
	awaitReady(t, s.admin)
	value := func(series string) string {
		code, body := get(t, s.admin, "/metrics")
		if code != http.StatusOK {
			t.Fatalf("got %d with %s", code, body)
		}
		match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (.*)$`).FindStringSubmatch(body)
		return slices.Concat(match, []string{"", ""})[1]
	}
	want := func(series, want string) {
		t.Helper()
		eventually(t, series+" is "+want, func() bool { return value(series) == want })
	}
	want("rollcall_serve_ready", "1")
	for _, name := range []string{"clients", "services", "streams_total", "streams_refused_total", "pushes_total", "nacks_total"} {
		want("rollcall_xds_"+name, "0")
	}
	want("rollcall_service_subscribers", "0")
	conn := plainConn(t, s.xds[0])
	open := func() discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	const clusterType = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	stream := open()
	_ = stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: clusterType, ResourceNames: []string{"t-metrics"}})
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	want("rollcall_xds_clients", "1")
	want("rollcall_xds_services", "1")
	want("rollcall_xds_streams_total", "1")
	want("rollcall_xds_pushes_total", "1")
	want("rollcall_service_subscribers", "1")
	_ = stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: clusterType, ResourceNames: []string{"t-metrics"}, ResponseNonce: resp.GetNonce(),
		ErrorDetail: &rpcstatus.Status{Message: "no"}})
	want("rollcall_xds_nacks_total", "1")
	if _, err := open().Recv(); err == nil {
		t.Error("a stream too many is served")
	}
	want("rollcall_xds_streams_refused_total", "1")
	if value("go_goroutines") == "" || value("process_start_time_seconds") == "" || value("rollcall_etcd_outage_seconds") != "0" {
		t.Error("the process, the runtime or the Directory is missing")
	}
	_, body := get(t, s.admin, "/metrics")
	if !strings.Contains(body, `rollcall_etcd_calls_total{code="OK",method="etcdserverpb.KV/`) {
		t.Errorf("no list is counted as a call to etcd: %s", body)
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, "rollcall_") })
	if len(problems) > 0 || err != nil {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}
