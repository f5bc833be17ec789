// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
)

// lab is a Directory and a Registrar on a fake etcd, in virtual time.
type lab struct {
	*testing.T
	store     *fakeetcd.Store
	conn      *fakeetcd.Conn
	directory *rollcall.Directory
	registrar *rollcall.Registrar
}

func bubble(t *testing.T, test func(l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{T: t, store: fakeetcd.New()}
		defer l.store.Close()
		l.conn = l.store.Connect(context.Background())
		defer l.conn.Close()
		var err error
		if l.directory, err = rollcall.NewDirectory(l.conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5}}); err != nil {
			t.Fatal(err)
		}
		defer l.directory.Close()
		if l.registrar, err = rollcall.NewRegistrar(l.directory, rollcall.RegistrarOptions{}); err != nil {
			t.Fatal(err)
		}
		defer l.registrar.Close()
		test(l)
	})
}

func (l *lab) follow(service string) (stop func()) {
	l.Helper()
	d, err := l.directory.SubscribeFunc(service, func(*rollcall.Snapshot, error) {})
	if err != nil {
		l.Fatal(err)
	}
	time.Sleep(time.Second)
	return d.Close
}

func (l *lab) register(id string) *rollcall.Registration {
	l.Helper()
	g, err := l.registrar.Register("own", rollcall.Endpoint{ID: id, Addr: "10.0.0.1:80"})
	if err != nil {
		l.Fatal(err)
	}
	time.Sleep(time.Second)
	return g
}

// gather returns the series of a Collector: "name{label=value}" and value; of a histogram "_count"
// and "_sum".
func (l *lab) gather(opts rollcallprom.Options) map[string]float64 {
	l.Helper()
	return gatherFrom(l.T, rollcallprom.NewCollector(l.directory, opts))
}

func gatherFrom(t *testing.T, collector *rollcallprom.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			name := family.GetName() + "{" + strings.Join(labels, ",") + "}"
			if h := m.GetHistogram(); h != nil {
				series[name] = float64(h.GetSampleCount())
				continue
			}
			series[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return series
}

// Each metric moves by what it is about.
func TestEachMetricMoves(t *testing.T) {
	bubble(t, func(l *lab) {
		l.store.Put("svc/a", `{"Addr":"10.0.0.1:80"}`)
		l.store.Put("svc/b", `{"Addr":"10.0.0.2:80"}`)
		l.store.Put("svc/c", `{"Addr":"10.0.0.3:80"}`)
		moved := make(map[string]bool)
		// expect has what an act changes, by how much; 0: by any amount.
		expect := func(act string, do func(), changes map[string]float64) {
			t.Helper()
			opts := rollcallprom.Options{Registrars: []*rollcall.Registrar{l.registrar}}
			before := l.gather(opts)
			do()
			after := l.gather(opts)
			for name, by := range changes {
				name, labels, _ := strings.Cut(name, "{")
				series := "rollcall_" + name + "{" + labels
				moved["rollcall_"+name] = true
				if got := after[series] - before[series]; got == 0 || by != 0 && got != by {
					t.Errorf("%s: %s changes by %v, want %v", act, series, got, by)
				}
			}
		}
		var stop func()
		expect("subscribe", func() { stop = l.follow("svc") }, map[string]float64{
			"services{state=current}":                       1,
			"service_instances{service=svc,status=serving}": 3,
			"service_subscribers{service=svc}":              1,
			"service_revision{service=svc}":                 float64(l.store.Revision()),
			"service_updates_total{service=svc}":            1,
			"lists_total{cause=start}":                      1,
			"watch_opens_total{}":                           1,
		})
		expect("a drain, a bad value and a bad address", func() {
			l.store.Put("svc/a", `{"Addr":"10.0.0.1:80","Metadata":{"status":"draining"}}`)
			l.store.Put("svc/b", `nonsense`)
			l.store.Put("svc/c", `{"Addr":"nonsense"}`)
			time.Sleep(time.Second)
		}, map[string]float64{
			"service_instances{service=svc,status=serving}":    -3,
			"service_instances{service=svc,status=draining}":   1,
			"service_instances{service=svc,status=invalid}":    1,
			"service_instances{service=svc,status=disallowed}": 1,
			"service_events_total{service=svc}":                3,
			"update_latency_seconds{}":                         0,
			"service_revision{service=svc}":                    3,
		})
		expect("a burst", func() {
			for i := range 100 {
				l.store.Put("svc/a", fmt.Sprintf(`{"Addr":"10.0.0.1:%d"}`, i+1))
			}
			time.Sleep(time.Second)
		}, map[string]float64{"service_events_total{service=svc}": 100, "service_conflated_events_total{service=svc}": 0})
		expect("all vanish", func() {
			l.store.Delete("svc/a")
			l.store.Delete("svc/c")
			time.Sleep(time.Second)
		}, map[string]float64{
			"service_instances{service=svc,status=retained}": 2,
			"service_self_preservations_total{service=svc}":  1,
		})
		expect("register", func() { l.register("a").Drain(context.Background()); l.register("b") }, map[string]float64{
			"registrations{phase=registered}": 1,
			"registrations{phase=draining}":   1,
			"lease_grants_total{}":            1,
			"registration_writes_total{}":     3,
			"key_watches{}":                   2,
		})
		expect("a view of many services", func() {
			view, err := l.directory.SubscribePrefix("sv")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			t.Cleanup(view.Close)
		}, map[string]float64{"views{}": 1})
		expect("time", func() { time.Sleep(20 * time.Minute) }, map[string]float64{
			"lease_renewals_total{}":   0,
			"lists_total{cause=check}": 0,
		})
		expect("etcd loses the lease", func() {
			l.store.ExpireLease(l.registrar.Stats().Lease)
			time.Sleep(20 * time.Second)
		}, map[string]float64{"lease_losses_total{cause=expired}": 1, "lease_grants_total{}": 1})
		expect("a compaction", func() { l.conn.CancelWatches(rpctypes.ErrCompacted); time.Sleep(time.Second) }, map[string]float64{
			"lists_total{cause=compacted}":          0,
			"watch_restarts_total{cause=compacted}": 0,
		})
		expect("an outage", func() { l.conn.Cut(); time.Sleep(time.Minute) }, map[string]float64{
			"services{state=current}":                -1,
			"services{state=stale}":                  1,
			"service_staleness_seconds{service=svc}": 0,
			"etcd_outage_seconds{}":                  0,
			"lease_losses_total{cause=unrenewed}":    0,
			"registrations{phase=lost}":              2,
		})
		expect("a first subscription meanwhile", func() { l.follow("new") }, map[string]float64{"services{state=waiting}": 1})
		expect("its end", func() { l.conn.Mend(); time.Sleep(time.Minute) }, map[string]float64{
			"services{state=stale}":   -1,
			"services{state=waiting}": -1,
			"services{state=current}": 2,
			"etcd_outage_seconds{}":   0,
		})
		expect("a full database", func() {
			l.conn.Fail(fakeetcd.Txn, rpctypes.ErrNoSpace)
			l.register("c")
		}, map[string]float64{"registration_write_failures_total{}": 0, "registrations{phase=registering}": 1})
		l.conn.Fail(fakeetcd.Txn, nil)
		time.Sleep(5 * time.Minute) // until it is written
		expect("a backup restored, and as many writes", func() {
			backup := l.store.Snapshot()
			l.store.Put("svc/lost", `{"Addr":"10.0.0.9:80"}`)
			time.Sleep(time.Second)
			l.store.Restore(backup, 0)
			l.store.Put("svc/found", `{"Addr":"10.0.0.9:80"}`)
			time.Sleep(20 * time.Minute)
		}, map[string]float64{"inconsistencies_total{}": 0, "lists_total{cause=inconsistent}": 0})
		expect("the last unsubscribes", stop, map[string]float64{"remembered_services{}": 1, "services{state=current}": -1})
		expect("a restored backup", func() { l.store.Wipe(); time.Sleep(time.Minute) }, map[string]float64{"etcd_epochs_total{}": 1})

		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(rollcallprom.NewCollector(l.directory, rollcallprom.Options{}))
		problems, err := testutil.GatherAndLint(registry)
		if len(problems) > 0 || err != nil {
			t.Errorf("promlint: %+v, %v", problems, err)
		}
		families, _ := registry.Gather()
		for _, family := range families {
			if !moved[family.GetName()] {
				t.Errorf("nothing makes %s move", family.GetName())
			}
		}
	})
}

// The label of services is limited, or off; sums stay what they are.
func TestServiceLabel(t *testing.T) {
	bubble(t, func(l *lab) {
		for _, service := range []string{"a", "b", "c"} {
			l.store.Put(service+"/x", `{"Addr":"10.0.0.1:80"}`)
			defer l.follow(service)()
			l.store.Put(service+"/y", `{"Addr":"10.0.0.1:80"}`)
		}
		gone := l.follow("gone")
		l.store.Put("gone/y", `{"Addr":"10.0.0.1:80"}`)
		time.Sleep(time.Second)
		gone()
		const instances, events = "rollcall_service_instances", "rollcall_service_events_total"
		for _, row := range []struct {
			opts rollcallprom.Options
			want map[string]float64
		}{
			{rollcallprom.Options{}, map[string]float64{
				instances + "{service=a,status=serving}": 2, instances + "{service=c,status=serving}": 2, instances + "{service=other,status=serving}": 0,
				events + "{service=a}": 1, events + "{service=other}": 1}},
			{rollcallprom.Options{MaxServices: 1}, map[string]float64{
				instances + "{service=a,status=serving}": 2, instances + "{service=other,status=serving}": 4,
				events + "{service=a}": 1, events + "{service=other}": 3}},
			{rollcallprom.Options{NoServiceLabel: true}, map[string]float64{instances + "{status=serving}": 6, events + "{}": 4}},
		} {
			got := l.gather(row.opts)
			for series, want := range row.want {
				if value, ok := got[series]; !ok || value != want {
					t.Errorf("%+v: %s is %v, want %v", row.opts, series, value, want)
				}
			}
			for series := range got {
				if row.opts.MaxServices == 1 && strings.Contains(series, "service=b") || row.opts.NoServiceLabel && strings.Contains(series, "service=") {
					t.Errorf("%+v: %s", row.opts, series)
				}
			}
		}
	})
}

// Counters do not go down while services come and go at the limit, and a service keeps its series.
func TestServicesAtTheLimit(t *testing.T) {
	bubble(t, func(l *lab) {
		collector := rollcallprom.NewCollector(l.directory, rollcallprom.Options{MaxServices: 2})
		stops := make(map[string]func())
		begin := func(service string) {
			stops[service] = l.follow(service)
			for i := range 10 {
				l.store.Put(fmt.Sprintf("%s/%d", service, i), `{"Addr":"10.0.0.1:80"}`)
			}
			time.Sleep(time.Second)
		}
		end := func(service string) { stops[service](); time.Sleep(time.Second) }
		before := make(map[string]float64)
		// expect has the services with series of their own, and the events of the others.
		expect := func(act string, others float64, own ...string) {
			t.Helper()
			series := gatherFrom(t, collector)
			var services []string
			for name, value := range series {
				service, isEvents := strings.CutPrefix(name, "rollcall_service_events_total{service=")
				if isEvents && service != "other}" {
					services = append(services, strings.TrimSuffix(service, "}"))
				}
				if strings.Contains(name, "_total{") && value < before[name] {
					t.Errorf("%s: %s goes down from %v to %v", act, name, before[name], value)
				}
			}
			slices.Sort(services)
			if got := series["rollcall_service_events_total{service=other}"]; got != others || !slices.Equal(services, own) {
				t.Errorf("%s: series of %v and %v events of others; want %v and %v", act, services, got, own, others)
			}
			before = series
		}
		for _, service := range []string{"b", "c", "d"} {
			begin(service)
		}
		expect("three services", 10, "b", "c")
		begin("a")
		expect("the first by name begins", 20, "b", "c")
		end("a")
		expect("it ends", 20, "b", "c")
		end("b")
		expect("one with series ends", 30, "c")
		begin("a")
		expect("the first by name begins where there is room", 30, "a", "c")
		end("d")
		expect("one of the others ends", 30, "a", "c")
		end("a")
		end("c")
		expect("all end", 50)
	})
}

// Names that etcd's keys can have, and Prometheus cannot or that mean something else, do not spoil
// a scrape.
func TestHostileNames(t *testing.T) {
	bubble(t, func(l *lab) {
		for _, service := range []string{"other", "a*", "\xff\xfe", "\xff\xff", "z{\"\n"} {
			defer l.follow(service)()
		}
		for _, prefix := range []string{"a", "", "shop/", "shop"} {
			sub, err := l.directory.SubscribePrefix(prefix)
			if err != nil {
				l.Fatal(err)
			}
			defer sub.Close()
		}
		time.Sleep(time.Second)
		for _, max := range []int{1, 2, 1000} {
			got := l.gather(rollcallprom.Options{MaxServices: max})
			sum := 0.0
			for series, value := range got {
				if strings.HasPrefix(series, "rollcall_service_subscribers{") {
					sum += value
				}
			}
			if sum != 9 {
				t.Errorf("%v subscribers in %v, want 9", sum, slices.Sorted(maps.Keys(got)))
			}
		}
	})
}

// A Collector without a Directory has what Registrars do, and nothing else.
func TestRegistrarsAlone(t *testing.T) {
	bubble(t, func(l *lab) {
		l.register("a")
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(rollcallprom.NewCollector(nil, rollcallprom.Options{Registrars: []*rollcall.Registrar{l.registrar}}))
		families, err := registry.Gather()
		if err != nil || len(families) != 6 {
			t.Errorf("%d families, %v; want 6", len(families), err)
		}
	})
}
