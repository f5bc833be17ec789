// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-grpc/rollcall"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
	"github.com/rollcall-grpc/rollcall/xds"
)

// metricsHandler serves what rollcall serve exports: the figures of its Directory, of which so many
// services are told apart, of its calls to etcd, its xDS server and its process, and whether it is ready.
func metricsHandler(directory *rollcall.Directory, maxServices int, calls *rollcallprom.EtcdCalls, server *xds.Server, ready *readiness) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		rollcallprom.NewCollector(directory, rollcallprom.Options{MaxServices: maxServices, NoServiceLabel: maxServices == 0}),
		calls,
		newXDSCollector(server),
		newReadyGauge(ready),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func newReadyGauge(ready *readiness) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rollcall_serve_ready", Help: "Whether clients can be served (1) or not (0), as /readyz says."}, func() float64 {
		if ready.why() != "" {
			return 0
		}
		return 1
	})
}

// xdsMetric is one of the figures of an xDS server.
type xdsMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(s xds.Stats) float64
}

func newXDSMetric(name, help string, kind prometheus.ValueType, value func(s xds.Stats) float64) xdsMetric {
	return xdsMetric{prometheus.NewDesc(name, help, nil, nil), kind, value}
}

// xdsCollector implements prometheus.Collector.
type xdsCollector struct {
	server  *xds.Server
	metrics []xdsMetric
}

func newXDSCollector(server *xds.Server) *xdsCollector {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return &xdsCollector{server, []xdsMetric{
		newXDSMetric("rollcall_xds_clients", "xDS streams that are open.", gauge, func(s xds.Stats) float64 { return float64(s.Clients) }),
		newXDSMetric("rollcall_xds_services", "Services that xDS clients have asked for.", gauge, func(s xds.Stats) float64 { return float64(s.Services) }),
		newXDSMetric("rollcall_xds_streams_total", "xDS streams served.", counter, func(s xds.Stats) float64 { return float64(s.Streams) }),
		newXDSMetric("rollcall_xds_streams_refused_total", "xDS streams refused, for being more than --xds-max-streams.", counter, func(s xds.Stats) float64 { return float64(s.Refused) }),
		newXDSMetric("rollcall_xds_pushes_total", "Responses sent to xDS clients.", counter, func(s xds.Stats) float64 { return float64(s.Responses) }),
		newXDSMetric("rollcall_xds_nacks_total", "Responses that xDS clients have rejected (NACK).", counter, func(s xds.Stats) float64 { return float64(s.Rejections) }),
	}}
}

// Describe implements prometheus.Collector.
func (c *xdsCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		descs <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *xdsCollector) Collect(metrics chan<- prometheus.Metric) {
	stats := c.server.Stats()
	for _, m := range c.metrics {
		metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(stats))
	}
}
