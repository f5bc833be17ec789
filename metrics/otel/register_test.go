// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	rollcallotel "github.com/rollcall-grpc/rollcall/metrics/otel"
)

// collected has what a reader finds: by name and attributes the value, by name kind and unit.
type collected struct {
	values map[string]float64
	kinds  map[string]string
}

func collect(t *testing.T, reader *metric.ManualReader) collected {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	c := collected{make(map[string]float64), make(map[string]string)}
	for _, scope := range all.ScopeMetrics {
		if scope.Scope.Name != rollcallotel.Scope {
			t.Errorf("scope %q", scope.Scope.Name)
		}
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[float64]
			kind := "gauge"
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				points = data.DataPoints
			case metricdata.Sum[float64]:
				points = data.DataPoints
				if kind = "updowncounter"; data.IsMonotonic {
					kind = "counter"
				}
			}
			if m.Description == "" {
				t.Errorf("%s has no description", m.Name)
			}
			c.kinds[m.Name] = kind + " " + m.Unit
			for _, point := range points {
				var attributes []string
				for _, kv := range point.Attributes.ToSlice() {
					attributes = append(attributes, string(kv.Key)+"="+kv.Value.AsString())
				}
				c.values[m.Name+"{"+strings.Join(attributes, ",")+"}"] = point.Value
			}
		}
	}
	return c
}

func TestRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		r, err := rollcall.NewRegistrar(d, rollcall.RegistrarOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Register("own", rollcall.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
			t.Fatal(err)
		}
		for _, service := range []string{"a", "b"} {
			if _, err := d.SubscribeFunc(service, func(*rollcall.Snapshot, error) {}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for i := range 3 {
			store.Put(fmt.Sprint("a/", i), fmt.Sprintf(`{"Addr":"10.0.0.1:%d"}`, i+1))
			time.Sleep(time.Second)
		}
		for _, row := range []struct {
			opts rollcallotel.Options
			want map[string]float64
		}{
			{rollcallotel.Options{Registrars: []*rollcall.Registrar{r}}, map[string]float64{
				"rollcall.service.instances{rollcall.service=a,rollcall.status=serving}": 3,
				"rollcall.service.events{rollcall.service=a}":                            3,
				"rollcall.service.staleness{rollcall.service=b}":                         0,
				"rollcall.services{rollcall.state=current}":                              2,
				"rollcall.registrations{rollcall.phase=registered}":                      1,
				"rollcall.lists{rollcall.cause=start}":                                   3,
				"rollcall.update.deliveries{rollcall.within=0.0001}":                     3,
				"rollcall.update.deliveries{rollcall.within=+Inf}":                       0,
				"rollcall.update.delivery_time{}":                                        0,
			}},
			{rollcallotel.Options{MaxServices: 1}, map[string]float64{
				"rollcall.service.subscribers{rollcall.service=a}":     1,
				"rollcall.service.subscribers{rollcall.service=other}": 1,
			}},
			{rollcallotel.Options{NoServiceAttribute: true}, map[string]float64{"rollcall.service.subscribers{}": 2}},
		} {
			reader := metric.NewManualReader()
			registration, err := rollcallotel.Register(metric.NewMeterProvider(metric.WithReader(reader)), d, row.opts)
			if err != nil {
				t.Fatal(err)
			}
			got := collect(t, reader)
			for series, want := range row.want {
				if value, ok := got.values[series]; !ok || value != want {
					t.Errorf("%s is %v, %v; want %v", series, value, ok, want)
				}
			}
			for name, want := range map[string]string{
				"rollcall.service.instances": "updowncounter {instance}", "rollcall.service.staleness": "gauge s",
				"rollcall.lists": "counter {list}", "rollcall.update.delivery_time": "counter s",
			} {
				if got.kinds[name] != want {
					t.Errorf("%s is a %s, want %s", name, got.kinds[name], want)
				}
			}
			if err := registration.Unregister(); err != nil {
				t.Fatal(err)
			}
			if after := collect(t, reader); len(after.values) > 0 {
				t.Errorf("%d values after Unregister", len(after.values))
			}
		}
	})
}
