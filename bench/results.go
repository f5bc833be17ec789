// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// results are the measurements of a run.
type results struct {
	Machine   machine
	Began     time.Time
	Took      string
	Scenarios []*outcome
}

// outcome has the measurements of a scenario.
type outcome struct {
	Name     string
	Subjects []*measured

	scenario scenario
}

// measured has the samples of a subject.
type measured struct {
	Subject  string
	Samples  []sample
	Unended  bool // a measurement did not finish in time
	Finished string
}

// machine describes where the measurements were made.
type machine struct {
	CPU, Kernel, Go string
	Cores           int
	MemoryGiB       int
	Modules         map[string]string
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Modules: make(map[string]string)}
	line := func(file, prefix string) string {
		text, _ := os.ReadFile(file) // a missing file is left out
		for l := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				return strings.Trim(rest, " \t:\n")
			}
		}
		return ""
	}
	m.CPU, m.Kernel = line("/proc/cpuinfo", "model name"), line("/proc/sys/kernel/osrelease", "")
	var kib int
	_, _ = fmt.Sscan(line("/proc/meminfo", "MemTotal"), &kib)
	m.MemoryGiB = (kib + 1<<19) >> 20
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			switch dep.Path {
			case "go.etcd.io/etcd/client/v3", "google.golang.org/grpc", "github.com/zeromicro/go-zero", "github.com/go-kit/kit":
				m.Modules[dep.Path] = dep.Version
			}
		}
	}
	return m
}

// add adds a sample; nil means that the measurement did not finish.
func (r *results) add(sc scenario, subject string, s sample) {
	if len(r.Scenarios) == 0 || r.Scenarios[len(r.Scenarios)-1].Name != sc.name {
		r.Scenarios = append(r.Scenarios, &outcome{Name: sc.name, scenario: sc})
	}
	o := r.Scenarios[len(r.Scenarios)-1]
	m := o.of(subject)
	if m == nil {
		m = &measured{Subject: subject}
		o.Subjects = append(o.Subjects, m)
	}
	if s == nil {
		m.Unended = true
		return
	}
	m.Samples = append(m.Samples, s)
}

func (o *outcome) of(subject string) *measured {
	for _, m := range o.Subjects {
		if m.Subject == subject {
			return m
		}
	}
	return nil
}

// ordered returns the subjects in the scenario's order.
func (o *outcome) ordered() []*measured {
	slices.SortFunc(o.Subjects, func(a, b *measured) int {
		return slices.Index(o.scenario.subjects, a.Subject) - slices.Index(o.scenario.subjects, b.Subject)
	})
	return o.Subjects
}

// median returns the median of a metric, NaN if it was not measured.
func (m *measured) median(metric string) float64 { return m.quantile(metric, 0.5) }

func (m *measured) quantile(metric string, q float64) float64 {
	if m == nil || m.Unended {
		return math.NaN()
	}
	var all []float64
	for _, s := range m.Samples {
		all = append(all, s[metric])
	}
	return quantile(all, q)
}

// quantile returns the q-quantile of all, NaN if all is empty.
func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	all = slices.Sorted(slices.Values(all))
	return all[int(math.Round(q*float64(len(all)-1)))]
}

// median returns the median of a subject's metric in a scenario, NaN if it was not measured.
func (r *results) median(name, subject, metric string) float64 {
	for _, o := range r.Scenarios {
		if o.Name == name {
			return o.of(subject).median(metric)
		}
	}
	return math.NaN()
}

// bar is a limit that Rollcall must not exceed.
type bar struct {
	what     string
	most     float64
	unit     string
	measured float64 // NaN: not in this run
}

func (b bar) met() bool { return b.measured <= b.most }

// bars returns the bars that the run has measured.
func (r *results) bars() (bars []bar) {
	add := func(what string, most float64, unit string, measured float64) {
		if !math.IsNaN(measured) {
			bars = append(bars, bar{what, most, unit, measured})
		}
	}
	for _, row := range []struct {
		n    int
		most float64
	}{{1, 50}, {1000, 80}, {10_000, 250}} {
		name := fmt.Sprintf("lone/%d", row.n)
		add("lone change, "+thousands(row.n)+": delay after the raw event, p50", row.most, " us", r.median(name, ours, "more, p50"))
		add("lone change, "+thousands(row.n)+": over the raw event", 1.15, "", r.median(name, ours, "ratio"))
	}
	over := func(name, metric, subject, other string) float64 {
		return r.median(name, subject, metric) / r.median(name, other, metric)
	}
	add("cold start of 10,000 over a raw Get", 1.3, "", over("cold/10000", "time", ours, rawGet))
	add("cold start of 10,000 over a raw Get, in pages", 1.6, "", over("cold/10000", "time", paged, rawGet))
	add("burst of 10,000 joins: CPU over etcd's package", 1.0/20, "", over("burst", "CPU", ours, theirs))
	add("burst of 10,000 joins: CPU over a raw watch", 2, "", over("burst", "CPU", ours, raw))
	add("burst of 10,000 joins: lag over etcd's package", 1.0/100, "", over("burst", "lag", ours, theirs))
	add("burst of 2,000 joins under round_robin: CPU over etcd's package", 1.0/30, "", over("round_robin", "CPU", ours, theirs))
	add("burst of 2,000 joins under round_robin: lag over etcd's package", 1.0/100, "", over("round_robin", "lag", ours, theirs))
	add("1,000 channels to one service: watches, beside the one for all service configs", 1, "", r.median("channels/1", ours, "watches"))
	add("1,000 channels to one service: heap and stack", 5, " KiB a channel", r.median("channels/1", ours, "memory"))
	add("1,000 channels to one service: ready, over etcd's package", 1.0/50, "", over("channels/1", "ready", ours, theirs))
	add("1,000 connections: ready, over an instant resolver", 1.1, "", over("connections", "ready", ours, instant))
	add("1,000 connections: memory, over an instant resolver", 1.1, "", over("connections", "memory", ours, instant))
	add("rollout at 10,000 under round_robin", 40, " % of a core", r.median("rollout", ours, "CPU"))
	add("1,000 puts that change nothing: states", 0, "", r.median("again", ours, "states"))
	add("decode", 250, " ns", r.median("decode", ours, "time"))
	add("decode", 2, " allocations", r.median("decode", ours, "allocations"))
	add("10,000 registered, idle: keepalives a second, over those of one lease (3 a TTL)", 1.5, "", r.median("registered", ours, "keepalives")/0.3)
	for _, n := range []int{10, 1000, 10_000} {
		name := fmt.Sprintf("picks/%d", n)
		for _, policy := range barred[1:] {
			add("a pick of "+policy+", "+thousands(n)+": over round_robin", 1.3, "", over(name, "time", policy, "round_robin"))
			add("a pick of "+policy+", "+thousands(n), 0, " allocations", r.median(name, policy, "allocations"))
		}
	}
	return bars
}

// ahead returns the subjects whose median beats Rollcall's by more than a tenth.
func (o *outcome) ahead() (all []string) {
	us := o.of(ours)
	for _, metric := range o.scenario.metrics {
		mine := us.median(metric.name)
		for _, m := range o.ordered() {
			theirs := m.median(metric.name)
			if m == us || metric.note || slices.Contains([]string{raw, rawGet, rawStream, instant, paged}, m.Subject) {
				continue
			}
			if !metric.more && theirs < mine*0.9 || metric.more && theirs > mine/0.9 {
				all = append(all, fmt.Sprintf("%s: %s %s, Rollcall %s", m.Subject, metric.name, figure(theirs, metric.unit), figure(mine, metric.unit)))
			}
		}
	}
	return all
}

// figure formats a number with three significant digits.
func figure(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.Abs(v) >= 100:
		return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, strings.TrimSpace(unit)))
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s", v, strings.TrimSpace(unit)))
}
