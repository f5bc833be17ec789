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
	"syscall"
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
	PageFault       time.Duration // the first touch of 4 KiB of memory
	Modules         map[string]string
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), PageFault: pageFault(), Modules: make(map[string]string)}
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
			case "go.etcd.io/etcd/client/v3", "google.golang.org/grpc", "github.com/zeromicro/go-zero", "github.com/go-kit/kit", "github.com/envoyproxy/go-control-plane":
				m.Modules[dep.Path] = dep.Version
			}
		}
	}
	return m
}

func pageFault() time.Duration {
	const page, pages = 4 << 10, 4 << 10
	memory := must(syscall.Mmap(-1, 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE))
	defer func() { check(syscall.Munmap(memory)) }()
	check(syscall.Madvise(memory, syscall.MADV_NOHUGEPAGE))
	began := time.Now()
	for i := range pages {
		memory[i*page] = 1
	}
	return time.Since(began) / pages
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

// median returns the median of a metric, NaN if it was not measured, and infinity if a
// measurement did not finish.
func (m *measured) median(metric string) float64 { return m.quantile(metric, 0.5) }

func (m *measured) quantile(metric string, q float64) float64 {
	switch {
	case m == nil:
		return math.NaN()
	case m.Unended:
		return math.Inf(1)
	}
	var all []float64
	for _, s := range m.Samples {
		if v, ok := s[metric]; ok {
			all = append(all, v)
		}
	}
	return quantile(all, q)
}

// quantile returns the q-quantile of all, between two values in proportion; NaN if all is empty.
func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	all = slices.Sorted(slices.Values(all))
	at := q * float64(len(all)-1)
	below := int(at)
	above := min(below+1, len(all)-1)
	return all[below] + (at-float64(below))*(all[above]-all[below])
}

// of returns the measurements of a scenario, nil where the run has none.
func (r *results) of(name string) *outcome {
	i := slices.IndexFunc(r.Scenarios, func(o *outcome) bool { return o.Name == name })
	if i < 0 {
		return nil
	}
	return r.Scenarios[i]
}

// median returns the median of a subject's metric in a scenario, NaN where the run has none.
func (r *results) median(name, subject, metric string) float64 {
	if o := r.of(name); o != nil {
		return o.of(subject).median(metric)
	}
	return math.NaN()
}

// figure formats a number with three significant digits.
func figure(v float64, unit string) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case math.Abs(v) >= 100:
		return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, strings.TrimSpace(unit)))
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s", v, strings.TrimSpace(unit)))
}
