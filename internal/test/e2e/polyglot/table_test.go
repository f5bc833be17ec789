// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// table is what was measured, by row and language.
type table struct {
	mu    sync.Mutex
	rows  []string
	cells map[string]map[string]string
	texts []string // rows that are errors' texts, which are too long for a table
}

var measured = &table{cells: make(map[string]map[string]string)}

func (tb *table) set(row, language, cell string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.cells[row] == nil {
		tb.rows = append(tb.rows, row)
		tb.cells[row] = make(map[string]string)
	}
	tb.cells[row][language] = cell
}

// text notes what the user of a client reads.
func (tb *table) text(row, language, text string) {
	tb.set(row, language, text)
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if !slices.Contains(tb.texts, row) {
		tb.texts = append(tb.texts, row)
	}
}

func (tb *table) row(row string) string {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	var parts []string
	for _, l := range languages {
		if cell := tb.cells[row][l.name]; cell != "" {
			parts = append(parts, l.name+" "+cell)
		}
	}
	return row + ": " + strings.Join(parts, ", ")
}

const preamble = `# xDS clients

What the clients in [examples/polyglot](../examples/polyglot/README.md) do with Rollcall's xDS, which two replicas serve
at one address. "make clients" has measured it, all on one machine: the times depend on it and on what else it
did. grpc-go is that of go.mod, @grpc/grpc-js and @grpc/grpc-js-xds are those of the example's package.json; Python,
C++ and Ruby are Debian 12's, on gRPC's core 1.51. No call failed in what is not about errors.

The core waits a second before it connects to another replica. Calls go on meanwhile. Python takes 1 to 2 s to call
what is added to a service that was empty. grpc-go shows no reason
where calls are refused; "rollcall xds explain" does.

`

func (tb *table) markdown() string {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	var b strings.Builder
	b.WriteString(preamble)
	b.WriteString("| |")
	for _, l := range languages {
		b.WriteString(" " + l.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(languages)) + "\n")
	for _, row := range tb.rows {
		if slices.Contains(tb.texts, row) {
			continue
		}
		b.WriteString("| " + row + " |")
		for _, l := range languages {
			b.WriteString(" " + tb.cells[row][l.name] + " |")
		}
		b.WriteString("\n")
	}
	for _, row := range tb.texts {
		fmt.Fprintf(&b, "\n%s:\n\n", row)
		for _, l := range languages {
			if text := tb.cells[row][l.name]; text != "" {
				fmt.Fprintf(&b, "- %s: `%s`\n", l.name, text)
			}
		}
	}
	return b.String()
}

func duration(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
