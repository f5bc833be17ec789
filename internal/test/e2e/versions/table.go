// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/test/gotest"
)

// feature is a row of the table: what is tested, and the tests of it.
type feature struct{ name, pkg, tests string }

const (
	module = "github.com/rollcall-grpc/rollcall/"
	e2e    = "internal/test/e2e"
)

var features = []feature{
	{"programs written for etcd's package", e2e, "Compat|Interop"},
	{"following services, faults W", e2e + "/watching", "W[0-9]|Idle"},
	{"resolving and calling, faults G", e2e + "/resolving", "G[0-9]|Default|Cold"},
	{"registering, faults L", e2e + "/registering", "L[0-9]|OneOf|FewOp|Outage|Close|Registrations"},
	{"users, tokens and TLS, faults A", e2e + "/access", "A[0-9]|Truncated"},
	{"service configs, selectors, zones, weights", e2e + "/steering", "Service|Selectors|Documented|Shuffle|Ring|Outlier|Rolling|Weight|Zone"},
	{"`ls`, `get`, `resolve`", "cmd/rollcall", "Goldens|Ls|Resolve"},
	{"`watch`, `top`, `history`", "cmd/rollcall", "Watch|Top|History|Tables"},
	{"`add`, `rm`, `register`", "cmd/rollcall", "Add|Rm|Register"},
	{"`drain`, `undrain`, `weight`, `config`", "cmd/rollcall", "Drain|Edit|Config"},
	{"`status`, `ping`", "cmd/rollcall", "Status|Ping"},
	{"`serve`: xDS, the page, metrics, discovery", "cmd/rollcall", "Serve|Console|Discovery|XDS|Clients|Explain"},
	{"`roles`, refusals", "cmd/rollcall", "Users|Roles|Refus"},
}

// offers is the test that notes what a version has of its own.
var offers = feature{"", e2e + "/versions", "Offers"}

// result is what the tests of a feature came to on a version.
type result struct {
	passed          int
	failed, skipped []string
}

func (r *result) String() string {
	switch {
	case r == nil || r.passed+len(r.failed)+len(r.skipped) == 0:
		return "no test ran"
	case len(r.failed) > 0:
		return "FAILS: " + strings.Join(r.failed, ", ")
	case len(r.skipped) > 0:
		return fmt.Sprintf("works, %d tests; skipped: %s", r.passed, strings.Join(r.skipped, ", "))
	}
	return fmt.Sprintf("works, %d tests", r.passed)
}

// column is what is known of a version.
type column struct {
	version string
	results map[string]*result // by feature
	rows    []string           // of notes
	notes   map[string]string
}

// take adds an event of the tests. Of several features a test is of the first that it fits.
func (c *column) take(e gotest.Event) {
	if figure, ok := e.Measured(); ok && strings.HasSuffix(e.Package, offers.pkg) {
		row, text, _ := strings.Cut(figure, ": ")
		if row == "" {
			c.version = text
			return
		}
		c.rows = append(c.rows, row)
		c.notes[row] = text
		return
	}
	if e.Test == "" || strings.Contains(e.Test, "/") && e.Action != "skip" {
		return
	}
	i := slices.IndexFunc(features, func(f feature) bool { return f.has(e) })
	if i < 0 {
		return
	}
	r := c.results[features[i].name]
	if r == nil {
		r = new(result)
		c.results[features[i].name] = r
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed = append(r.failed, e.Test)
	case "skip":
		r.skipped = append(r.skipped, e.Test)
	}
}

// works reports whether every feature does.
func (c *column) works() bool {
	return c.version != "" && !slices.ContainsFunc(features, func(f feature) bool {
		r := c.results[f.name]
		return r == nil || r.passed == 0 || len(r.failed) > 0
	})
}

const preamble = `# Versions of etcd

Rollcall is tested on etcd 3.4, 3.5, 3.6 and 3.7. ` + "`make etcd-versions`" + ` builds each from its module, runs the
tests on it and writes this page: each cell is a run. CI runs the tests on 3.5 and 3.7 for every change. etcd before 3.4 is not
tested.

3.4 has ended at its project, and of 3.4 the newest release that Go's module proxy serves is tested. Upgrade one minor version at a
time, each member in turn: clients go on, as row W8 of [reliability.md](reliability.md) has it.

etcd before 3.4.42, 3.5.28 and 3.6.9 does not check rights in transactions within transactions, so that users keep nobody
out: upgrade where etcd has users. A registration of many endpoints is one such transaction, and is then not refused either.

Rows W, G, L and A are those of [reliability.md](reliability.md), with fewer keys and endpoints.
`

// markdown returns the page.
func markdown(columns []*column) string {
	var b strings.Builder
	b.WriteString(preamble)
	head := "\n| |"
	for _, c := range columns {
		head += " etcd " + c.version + " |"
	}
	head += "\n|---|" + strings.Repeat("---|", len(columns)) + "\n"
	b.WriteString("\n## What works\n" + head)
	for _, f := range features {
		writeRow(&b, f.name, columns, func(c *column) string { return c.results[f.name].String() })
	}
	b.WriteString("\n## What differs\n" + head)
	for _, row := range columns[0].rows {
		writeRow(&b, row, columns, func(c *column) string { return c.notes[row] })
	}
	return b.String()
}

func writeRow(b *strings.Builder, name string, columns []*column, cell func(*column) string) {
	b.WriteString("| " + name + " |")
	for _, c := range columns {
		b.WriteString(" " + strings.ReplaceAll(cell(c), "|", `\|`) + " |")
	}
	b.WriteString("\n")
}
