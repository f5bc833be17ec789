// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
)

// cells returns the table of a scenario: a header and a row for each subject.
func (o *outcome) cells() (rows [][]string) {
	header := []string{""}
	for _, m := range o.scenario.metrics {
		header = append(header, strings.TrimSuffix(m.name+", "+m.unit, ", "))
	}
	rows = append(rows, append(header, "rounds"))
	for _, m := range o.ordered() {
		row := []string{m.Subject}
		for _, metric := range o.scenario.metrics {
			cell := figure(m.median(metric.name), "")
			if low, high := figure(m.quantile(metric.name, 0), ""), figure(m.quantile(metric.name, 1), ""); low != high {
				cell += " (" + low + " to " + high + ")"
			}
			row = append(row, cell)
		}
		row = append(row, strconv.Itoa(len(m.Samples)))
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
	fmt.Fprintf(w, "\nahead of Rollcall\tin\twith\tRollcall\treason\n")
	for _, l := range r.ahead() {
		fmt.Fprintf(w, "%s\t%s: %s\t%s\t%s\t%s\n", l.peer, l.title, l.metric, l.theirs, l.mine, l.why)
	}
	_ = w.Flush()
	fmt.Fprintln(out, "\ntook", r.Took)
	return missed
}

// markdown returns the text between the markers in benchmarks.md.
func (r *results) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Measured on %s: %d cores of %s, %d GiB, %.2f us a page fault, Linux %s, %s",
		r.Began.Format("2006-01-02"), m.Cores, m.CPU, m.MemoryGiB, us(m.PageFault), m.Kernel, m.Go)
	for _, module := range []string{"google.golang.org/grpc", "go.etcd.io/etcd/client/v3", "github.com/zeromicro/go-zero", "github.com/go-kit/kit", "github.com/envoyproxy/go-control-plane"} {
		fmt.Fprintf(&b, ", %s %s", module, m.Modules[module])
	}
	fmt.Fprintf(&b, ". The run took %s.\n\n%s## Bars\n\nLimits that Rollcall must stay within.\n\n| | at most | measured | |\n|---|---|---|---|\n", r.Took, r.summary())
	for _, bar := range r.bars() {
		result := "met"
		if !bar.met() {
			result = "**missed**: " + bar.why()
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
		for _, p := range plots {
			if p.after == o.Name {
				fmt.Fprintf(&b, "\n![%s](benchmarks/%s.svg)\n", p.title, p.file)
			}
		}
	}
	b.WriteString("\n## Ahead of Rollcall\n\nEvery figure in which a peer is ahead by more than a tenth and by more than the noise: the quartiles do not overlap, and where there are fewer than three rounds it is more than a half. With three rounds a row may still be chance. In a delay after the raw event, less than 50 us is noise, and in the lag of a rolling restart less than 1 ms.\n\n" +
		"| | figure | peer | its | Rollcall's | reason | worth mending |\n|---|---|---|---|---|---|---|\n")
	for _, l := range r.ahead() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", l.title, l.metric, l.peer, l.theirs, l.mine, l.why, l.worth)
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
