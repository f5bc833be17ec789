// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		child(os.Args[2:])
		return
	}
	remove, err := buildEtcd()
	check(err)
	code := m.Run()
	remove()
	os.Exit(code)
}

// Every subject shows the content of etcd, after joins, a change and a departure: what is
// compared does the same work.
func TestSubjectsFollow(t *testing.T) {
	etcd, err := startEtcd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.stop)
	for i, subject := range []string{ours, paged, theirs, goZero, goKit, ours, paged, theirs, goZero, goKit} {
		named := i >= 5
		t.Run(fmt.Sprintf("%s, named %v", subject, named), func(t *testing.T) {
			service := fmt.Sprintf("service-%d", i)
			w := writer{connect(etcd.address), subject, service, named}
			w.do("fill", []int{3})
			shown := make(chan seen, 1000)
			newFollower(subject, etcd.address).follow(service, func(s seen) { shown <- s })
			until := func(what string, reached func(seen) bool) {
				t.Helper()
				timeout := time.After(20 * time.Second)
				for {
					select {
					case s := <-shown:
						if reached(s) {
							return
						}
					case <-timeout:
						t.Fatalf("never shown: %s", what)
					}
				}
			}
			until("all three", func(s seen) bool { return s.n == 3 && s.has(addr(0)) && s.has(addr(2)) })
			w.do("join", []int{3, 2})
			until("two more", func(s seen) bool { return s.n == 5 && s.has(addr(4)) })
			w.do("change", []int{1, 1, 0, 0})
			until("a changed one", func(s seen) bool { return s.n == 5 && s.has(addr(changed)) && !s.has(addr(1)) })
			if _, err := w.client.Delete(context.Background(), w.key(0)); err != nil {
				t.Fatal(err)
			}
			until("one less", func(s seen) bool { return s.n == 4 && !s.has(addr(0)) })
		})
	}
	if n := watchers(etcd.address); n < 10 {
		t.Errorf("%v watches at the server, of five subjects and two services", n)
	}
}

// A member that is killed and run again has its data and its address, and ends with its process.
func TestRestart(t *testing.T) {
	etcd, err := startEtcd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.stop)
	w := writer{client: connect(etcd.address), subject: ours, service: "service"}
	w.do("fill", []int{3})
	etcd.kill()
	if conn, err := net.Dial("tcp", etcd.address); err == nil {
		t.Error("something listens after etcd was killed")
		_ = conn.Close()
	}
	if err := etcd.run(); err != nil {
		t.Fatal(err)
	}
	await(etcd.address)
	got, err := connect(etcd.address).Get(t.Context(), w.key(2))
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value(ours, addr(2), 2) {
		t.Errorf("after a restart the third endpoint is %v, %v", got, err)
	}
}

// A scan of a state finds every change, and no address that is not one.
func TestChangeOf(t *testing.T) {
	for i := range 10_000 {
		if got := changeOf(addr(changed + i)); got != i {
			t.Fatalf("%s is change %d, want %d", addr(changed+i), got, i)
		}
	}
	for i := range 100_001 {
		if got := changeOf(addr(i)); got != -1 {
			t.Fatalf("%s is change %d, want none", addr(i), got)
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, row := range []struct {
		of      []float64
		q, want float64
	}{{[]float64{3, 1, 2}, 0.5, 2}, {[]float64{5, 1, 4, 2, 3}, 0, 1}, {[]float64{5, 1, 4, 2, 3}, 1, 5}, {[]float64{7}, 0.99, 7}, {[]float64{3, 1}, 0.5, 2}, {[]float64{0, 4}, 0.25, 1}} {
		if got := quantile(row.of, row.q); got != row.want {
			t.Errorf("quantile %v of %v is %v, want %v", row.q, row.of, got, row.want)
		}
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
	some := measured{Samples: []sample{{"time": 3}, {"time": 1, "ratio": 2}}}
	if time, ratio, other := some.median("time"), some.median("ratio"), some.median("other"); time != 2 || ratio != 2 || !math.IsNaN(other) {
		t.Errorf("the medians are %v and %v, and that of a metric which no sample has %v", time, ratio, other)
	}
}

// What the report names is measured.
func TestReportNames(t *testing.T) {
	units := make(map[string]string) // of the metrics, by scenario and name
	for _, sc := range scenarios {
		for _, m := range sc.metrics {
			units[sc.name+": "+m.name] = m.unit
		}
	}
	all := make(map[string]bool) // bars
	for _, l := range slices.Concat(limits, pickLimits(10, 1000, 10_000)) {
		all[l.what] = true
		if _, ok := units[l.scenario+": "+l.metric]; !ok {
			t.Errorf("bar %q is of %s: %s, which is not measured", l.what, l.scenario, l.metric)
		}
	}
	for what := range whyMissed {
		if !all[what] {
			t.Errorf("no bar is called %q", what)
		}
	}
	for _, c := range compared {
		if unit, ok := units[c.scenario+": "+c.metric]; !ok || unit != c.unit {
			t.Errorf("%q is of %s: %s in %s, and the scenario has it in %q, %v", c.what, c.scenario, c.metric, c.unit, unit, ok)
		}
	}
}

// The reason of a near miss is not that of any other.
func TestWhyMissed(t *testing.T) {
	near, far := bar{what: "cold start of one over a raw Get", most: 1.3, measured: 1.35}, bar{what: "cold start of one over a raw Get", most: 1.3, measured: 2}
	if near.why() != coldOfOne || far.why() == coldOfOne {
		t.Errorf("reasons %q and %q", near.why(), far.why())
	}
}

// A page has the figures, the subjects that did not finish, and where others are ahead by more than
// the noise, and why.
func TestReport(t *testing.T) {
	sc := scenario{name: "burst", title: "A burst", about: "Of joins.", subjects: []string{raw, ours, theirs, goKit},
		metrics: []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms"}, {name: "states", note: true}}}
	res := &results{Began: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Took: "9m", Machine: machine{CPU: "a CPU", Cores: 2, MemoryGiB: 24, PageFault: 250 * time.Nanosecond, Kernel: "6.1", Go: "go1.26"}}
	for _, i := range []float64{0, 1, 2} {
		res.add(sc, theirs, sample{"CPU": 1000 + i, "lag": 0.5, "states": 10})
		res.add(sc, ours, sample{"CPU": 40 + i, "lag": 2.5, "states": 1})
		res.add(sc, raw, sample{"CPU": 10, "lag": 0.25, "states": 10})
	}
	res.add(sc, goKit, nil)
	lone := scenario{name: "lone/1", title: "A lone change", about: "Of a key.", subjects: []string{ours, theirs, goZero}, metrics: []metric{{name: "ratio"}, {name: "more, p50", unit: "us"}, {name: "more, p99", unit: "us", least: 50}}}
	rolling := scenario{name: "rolling", title: "A rolling restart", about: "Of all.", subjects: []string{ours, theirs, goZero, goKit}, metrics: []metric{{name: "lag", unit: "ms"}}}
	for _, i := range []float64{0, 1, 2} {
		res.add(lone, ours, sample{"ratio": 1.2, "more, p50": 45 + 2*i, "more, p99": 100})
		res.add(lone, theirs, sample{"ratio": 1.1, "more, p50": 20 + 20*i})                   // less than a tenth; quartiles that overlap
		res.add(lone, goZero, sample{"ratio": 1.05, "more, p50": 20 + 10*i, "more, p99": 60}) // the first two; the last by less than counts
	}
	for _, i := range []float64{0, 1, 2} {
		res.add(rolling, ours, sample{"lag": 4 + i})
		res.add(rolling, theirs, sample{"lag": 1 + i})
	}
	res.add(rolling, goZero, nil)
	for range 2 { // too few to tell that it is no chance
		res.add(rolling, goKit, sample{"lag": 3.5})
	}
	restart := scenario{name: "restart", title: "A restart", about: "Of etcd.", subjects: []string{ours, theirs}, metrics: []metric{{name: "time", unit: "ms"}}}
	res.add(restart, ours, sample{"time": 300})
	res.add(restart, theirs, nil)
	got := res.markdown()
	const file = "testdata/report.md"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("got (UPDATE=1 writes it to %s):\n%s\nwant, %v:\n%s", file, got, err, want)
	}
	var out strings.Builder
	if missed := res.print(&out); missed != 4 || !strings.Contains(out.String(), "MISSED") {
		t.Errorf("%d bars missed, want four:\n%s", missed, out.String())
	}
}
