// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package otel exports the figures of a Directory and of Registrars through the OpenTelemetry API.
// docs/metrics.md describes each metric.
//
// Calls to etcd are not among them: gRPC's own plugin, google.golang.org/grpc/stats/opentelemetry,
// measures those of a client whose clientv3.Config.DialOptions have its DialOption.
package otel

import (
	"cmp"
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/metrics/internal/table"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/rollcall-grpc/rollcall"

// Options are the settings of Register; the zero value works.
type Options struct {
	// Registrars are those whose registrations are counted, together. Default: none.
	Registrars []*rollcall.Registrar
	// MaxServices is how many services are told apart at a time by the attribute rollcall.service, the
	// first to be collected; the rest, and those that are not followed any more, are summed up as
	// "other". Default 1,000.
	MaxServices int
	// NoServiceAttribute leaves rollcall.service out: all services are summed up.
	NoServiceAttribute bool
}

// Register has the figures of a Directory, which may be nil, and of Registrars observed whenever
// the provider collects, until Unregister of what it returns.
//
// The API has no histogram that is observed. The latency of updates is given as two counters:
// rollcall.update.deliveries has how many were delivered, each in the narrowest bucket that it
// fits, rollcall.within; rollcall.update.delivery_time how long all took together.
func Register(provider metric.MeterProvider, directory *rollcall.Directory, opts Options) (metric.Registration, error) {
	source := &table.Source{Directory: directory, Registrars: opts.Registrars, MaxServices: cmp.Or(opts.MaxServices, table.DefaultMaxServices)}
	if opts.NoServiceAttribute {
		source.MaxServices = 0
	}
	meter := provider.Meter(Scope)
	instruments := make(map[*table.Metric]metric.Float64Observable)
	var all []metric.Observable
	for _, m := range append([]*table.Metric{deliveries, deliveryTime}, table.All...) {
		if m.Kind == table.Histogram {
			continue
		}
		instrument, err := newInstrument(meter, m)
		if err != nil {
			return nil, err
		}
		instruments[m] = instrument
		all = append(all, instrument)
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		samples, latency := source.Read()
		for _, s := range samples {
			o.ObserveFloat64(instruments[s.Metric], s.Value, metric.WithAttributes(attributes(source, s)...))
		}
		if directory == nil {
			return nil
		}
		o.ObserveFloat64(instruments[deliveryTime], latency.Sum.Seconds())
		within := func(bound string, n uint64) {
			o.ObserveFloat64(instruments[deliveries], float64(n), metric.WithAttributes(attribute.String("rollcall.within", bound)))
		}
		narrower := uint64(0)
		for _, b := range latency.Buckets {
			within(strconv.FormatFloat(b.Bound.Seconds(), 'g', -1, 64), b.Count-narrower)
			narrower = b.Count
		}
		within("+Inf", latency.Count-narrower)
		return nil
	}, all...)
}

// What stands for table.Latency, whose name is left to a histogram.
var (
	deliveries = &table.Metric{Name: "update.deliveries", Unit: "{delivery}", Kind: table.Counter,
		Help: "Changes delivered to subscribers, by how many seconds they took at most."}
	deliveryTime = &table.Metric{Name: "update.delivery_time", Unit: "s", Kind: table.Counter,
		Help: "Time from the receipt of changes to the subscribers that were given them, of all deliveries together."}
)

func newInstrument(meter metric.Meter, m *table.Metric) (metric.Float64Observable, error) {
	name, help, unit := m.OTelName(), metric.WithDescription(m.Help), metric.WithUnit(m.Unit)
	switch m.Kind {
	case table.Sum:
		return meter.Float64ObservableUpDownCounter(name, help, unit)
	case table.Gauge:
		return meter.Float64ObservableGauge(name, help, unit)
	}
	return meter.Float64ObservableCounter(name, help, unit)
}

func attributes(source *table.Source, s table.Sample) (attributes []attribute.KeyValue) {
	if s.Service && source.MaxServices > 0 {
		attributes = append(attributes, attribute.String("rollcall.service", s.Of))
	}
	if s.Label != "" {
		attributes = append(attributes, attribute.String("rollcall."+s.Label, s.By))
	}
	return attributes
}
