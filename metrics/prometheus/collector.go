// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package prometheus exports the figures of a Directory, of Registrars and of an etcd client to
// Prometheus. docs/metrics.md describes each metric.
package prometheus

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/metrics/internal/table"
)

// Options are the settings of a Collector; the zero value works.
type Options struct {
	// Registrars are those whose registrations are counted, together. Default: none.
	Registrars []*rollcall.Registrar
	// MaxServices is how many services have series of their own at a time, the first to be collected;
	// the rest, and those that are not followed any more, are summed up as "other". Default 1,000.
	MaxServices int
	// NoServiceLabel leaves the label "service" out: all services are summed up.
	NoServiceLabel bool
}

// Collector is a prometheus.Collector. What it collects is read when it is asked: without
// scrapes it costs nothing.
type Collector struct {
	source *table.Source
	descs  map[*table.Metric]*prometheus.Desc
}

// NewCollector returns a Collector of a Directory's figures; nil is a process that only registers.
// Of two Directories in a process, register each with a label of its own, by
// prometheus.WrapRegistererWith.
func NewCollector(directory *rollcall.Directory, opts Options) *Collector {
	c := &Collector{descs: make(map[*table.Metric]*prometheus.Desc)}
	c.source = &table.Source{Directory: directory, Registrars: opts.Registrars, MaxServices: cmp.Or(opts.MaxServices, table.DefaultMaxServices)}
	if opts.NoServiceLabel {
		c.source.MaxServices = 0
	}
	for _, m := range table.All {
		c.descs[m] = prometheus.NewDesc(m.PrometheusName(), m.Help, c.labels(m, "service", m.Label), nil)
	}
	return c
}

// labels returns those of the labels of a metric that it has.
func (c *Collector) labels(m *table.Metric, service, by string) (labels []string) {
	if m.Service && c.source.MaxServices > 0 {
		labels = append(labels, service)
	}
	if m.Label != "" {
		labels = append(labels, by)
	}
	return labels
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range table.All {
		descs <- c.descs[m]
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	samples, latency := c.source.Read()
	for _, s := range samples {
		kind := prometheus.GaugeValue
		if s.Kind == table.Counter {
			kind = prometheus.CounterValue
		}
		metrics <- prometheus.MustNewConstMetric(c.descs[s.Metric], kind, s.Value, c.labels(s.Metric, s.Of, s.By)...)
	}
	if c.source.Directory == nil {
		return
	}
	buckets := make(map[float64]uint64)
	for _, b := range latency.Buckets {
		buckets[b.Bound.Seconds()] = b.Count
	}
	metrics <- prometheus.MustNewConstHistogram(c.descs[table.Latency], latency.Count, latency.Sum.Seconds(), buckets)
}
