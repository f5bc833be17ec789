// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// terminalWidth returns how many columns the terminal of standard output has, 0 if it is not a terminal.
func (a *app) terminalWidth() int { return widthOf(a.stdout) }

func widthOf(stream any) int {
	file, ok := stream.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// fitted is a table that is cut to the terminal's width, but for -o wide.
func (a *app) fitted(rows [][]string) string {
	if a.output != "wide" {
		fit(rows, a.terminalWidth())
	}
	return table(rows...)
}

// namingColumns are the columns that say what a row is about: they are cut last.
var namingColumns = []string{"ID", "ADDRESS", "SERVICE", "MEMBER", "ENDPOINT"}

// shortColumn is what another column is cut to at most, as long as that is enough.
const shortColumn = 6

// fit shortens cells, each with a mark, so that a table of rows is at most width wide, where that is
// possible; 0 is no limit. The last column gives way first, then the widest.
func fit(rows [][]string, width int) {
	if width <= 0 {
		return
	}
	widths := make([]int, len(rows[0]))
	room := width - len(columnGap)*(len(widths)-1)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = safe(cell)
			widths[i] = max(widths[i], printable.Width(row[i]), 1)
		}
	}
	total := 0
	for _, w := range widths {
		total += w
	}
	last := len(widths) - 1
	if excess := total - room; excess > 0 {
		cut := min(excess, widths[last]-1)
		widths[last], total = widths[last]-cut, total-cut
	}
	for ; total > room; total-- {
		i := givesWay(rows[0], widths)
		if widths[i] == 1 {
			break
		}
		widths[i]--
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = shorten(cell, widths[i])
		}
	}
}

// givesWay returns the column that is to be cut next: the widest that names nothing and is not short, or
// else the widest.
func givesWay(header []string, widths []int) int {
	widest := slices.Index(widths, slices.Max(widths))
	next := -1
	for i, w := range widths {
		if w > shortColumn && !slices.Contains(namingColumns, header[i]) && (next < 0 || w > widths[next]) {
			next = i
		}
	}
	if next < 0 {
		return widest
	}
	return next
}

// columnGap is what table has between columns.
const columnGap = "  "

// outputs are the annotations of a command that knows other outputs than a table and JSON.
func outputs(names ...string) map[string]string {
	return map[string]string{outputsKey: strings.Join(names, " ")}
}

const outputsKey = "outputs"

// print writes a document in the form that was asked for, with the names of what is in it.
func (a *app) print(document any, names []string, table func() string) error {
	switch a.output {
	case "json":
		return a.printJSON(document)
	case "yaml":
		return a.printYAML(document)
	case "name":
		var b strings.Builder
		for _, name := range names {
			b.WriteString(safe(name) + "\n")
		}
		return a.write(b.String())
	}
	return a.write(table())
}

func (a *app) write(text string) error {
	_, err := a.stdout.Write([]byte(text))
	return err
}
