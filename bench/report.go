// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// cells returns the table of a scenario: a header and a row for each subject.
func (o *outcome) cells() (rows [][]string) {
	header := []string{""}
	for _, m := range o.scenario.metrics {
		header = append(header, strings.TrimSuffix(m.name+", "+m.unit, ", "))
	}
	rows = append(rows, header)
	for _, m := range o.ordered() {
		row := []string{m.Subject}
		for _, metric := range o.scenario.metrics {
			cell := figure(m.median(metric.name), "")
			if low, high := figure(m.quantile(metric.name, 0), ""), figure(m.quantile(metric.name, 1), ""); low != high {
				cell += " (" + low + " to " + high + ")"
			}
			row = append(row, cell)
		}
		if m.Unended {
			row[1] = fmt.Sprintf("did not finish in %v", limit)
		}
		rows = append(rows, row)
	}
	return rows
}

// print writes tables for a terminal and returns how many bars are missed.
func (r *results) print(out io.Writer) (missed int) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, o := range r.Scenarios {
		fmt.Fprintf(w, "\n%s (%s)\n", o.scenario.title, o.Name)
		for _, row := range o.cells() {
			fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
		}
		_ = w.Flush()
		for _, text := range o.ahead() {
			fmt.Fprintln(out, "  ahead:", text)
		}
	}
	fmt.Fprintf(w, "\nbar\tat most\tmeasured\t\n")
	for _, b := range r.bars() {
		result := "met"
		if !b.met() {
			result = "MISSED"
			missed++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", b.what, figure(b.most, b.unit), figure(b.measured, b.unit), result)
	}
	_ = w.Flush()
	fmt.Fprintln(out, "\ntook", r.Took)
	return missed
}

// markdown returns the text between the markers in benchmarks.md.
func (r *results) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Measured on %s: %d cores of %s, %d GiB, Linux %s, %s", r.Began.Format("2006-01-02"), m.Cores, m.CPU, m.MemoryGiB, m.Kernel, m.Go)
	for _, module := range []string{"google.golang.org/grpc", "go.etcd.io/etcd/client/v3", "github.com/zeromicro/go-zero", "github.com/go-kit/kit"} {
		fmt.Fprintf(&b, ", %s %s", module, m.Modules[module])
	}
	fmt.Fprintf(&b, ". The run took %s.\n\n## Bars\n\nLimits that Rollcall must stay within.\n\n| | at most | measured | |\n|---|---|---|---|\n", r.Took)
	for _, bar := range r.bars() {
		result := "met"
		if !bar.met() {
			result = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", bar.what, figure(bar.most, bar.unit), figure(bar.measured, bar.unit), result)
	}
	for _, o := range r.Scenarios {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", o.scenario.title, o.scenario.about)
		for i, row := range o.cells() {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
			}
		}
		if ahead := o.ahead(); len(ahead) > 0 {
			fmt.Fprintf(&b, "\nAhead of Rollcall: %s.\n", strings.Join(ahead, "; "))
		}
		for _, p := range plots {
			if p.after == o.Name {
				fmt.Fprintf(&b, "\n![%s](benchmarks/%s.svg)\n", p.title, p.file)
			}
		}
	}
	return b.String()
}

const from, to = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"

// write writes the tables, the samples and the plots to a directory.
func (r *results) write(dir string) error {
	page := filepath.Join(dir, "benchmarks.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", page, strings.TrimSpace(from), strings.TrimSpace(to))
	}
	if err := os.WriteFile(page, []byte(before+from+r.markdown()+to+after), 0o644); err != nil {
		return err
	}
	samples, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(samples, '\n'), 0o644); err != nil {
		return err
	}
	for _, p := range plots {
		if err := r.draw(p, filepath.Join(dir, p.file+".svg")); err != nil {
			return fmt.Errorf("plot %s: %w", p.file, err)
		}
	}
	return nil
}

// drawing is a plot of one metric in several scenarios, with a mark for each subject.
type drawing struct {
	file, title, axis string
	metric            string
	scenarios         []string
	subjects          []string
	after             string // the scenario after which it is shown
}

var plots = []drawing{
	{"lone", "A lone change: delay after the raw event, p50", "us", "more, p50", []string{"lone/1", "lone/1000", "lone/10000"}, all, "lone/10000"},
	{"cold", "A cold start", "ms", "time", []string{"cold/1000", "cold/10000", "cold/50000"}, []string{ours, theirs, goZero, goKit, rawGet, rawStream, paged}, "cold/50000"},
	{"cpu", "CPU of a burst", "ms", "CPU", []string{"burst", "rolling", "round_robin"}, append(all, raw), "round_robin"},
	{"lag", "From the last write to the state", "ms", "lag", []string{"burst", "rolling", "round_robin"}, append(all, raw), "round_robin"},
	{"memory", "Heap and stacks a channel", "KiB", "memory", []string{"channels/1", "channels/100"}, all, "channels/100"},
}

// draw draws a plot with a logarithmic axis.
func (r *results) draw(d drawing, file string) error {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = d.title, d.axis
	p.Legend.Top, p.Legend.Left = true, true
	p.NominalX(d.scenarios...)
	low, high := math.Inf(1), math.Inf(-1)
	for i, subject := range d.subjects {
		var points plotter.XYs
		for j, name := range d.scenarios {
			v := r.median(name, subject, d.metric)
			if v > 0 { // NaN and 0 cannot be shown on a logarithmic axis
				points = append(points, plotter.XY{X: float64(j) + 0.08*(float64(i)-float64(len(d.subjects)-1)/2), Y: v})
				low, high = min(low, v), max(high, v)
			}
		}
		if len(points) == 0 {
			continue
		}
		marks, err := plotter.NewScatter(points)
		if err != nil {
			return err
		}
		marks.GlyphStyle = draw.GlyphStyle{Color: plotutil.Color(i), Shape: plotutil.Shape(i), Radius: vg.Points(4)}
		p.Add(marks)
		p.Legend.Add(subject, marks)
	}
	if math.IsInf(low, 0) {
		return nil // nothing was measured
	}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high))+1)
	p.X.Min, p.X.Max = -0.5, float64(len(d.scenarios))-0.5
	return p.Save(8*vg.Inch, 4*vg.Inch, file)
}
