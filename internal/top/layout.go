// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

const (
	columnGap = "  "
	// narrow is what a column keeps when others have no room: less of a name or an address says nothing.
	narrow = 12
)

// layOut returns a line for each row, at most width cells wide. The widest columns are cut, with a mark;
// where that is not enough, the last ones are left out.
func layOut(rows [][]string, width int) []string {
	widths := make([]int, len(rows[0]))
	safe := make([][]string, len(rows))
	for r, row := range rows {
		safe[r] = make([]string, len(row))
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			safe[r][i] = printable.Escape(cell)
			widths[i] = max(widths[i], printable.Width(safe[r][i]))
		}
	}
	widths = fit(widths, width)
	lines := make([]string, len(rows))
	for r, row := range safe {
		var b strings.Builder
		for i, w := range widths {
			if i > 0 {
				b.WriteString(columnGap)
			}
			b.WriteString(pad(row[i], w))
		}
		lines[r] = pad(b.String(), width)
	}
	return lines
}

// fit returns the widths of the columns that have room.
func fit(widths []int, width int) []int {
	total := len(columnGap) * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := slices.Index(widths, slices.Max(widths))
		switch {
		case widths[widest] > narrow:
			widths[widest]--
		case len(widths) > 1:
			last := len(widths) - 1
			return fit(widths[:last], width)
		default:
			return []int{width}
		}
	}
	return widths
}

// pad makes text exactly width cells wide.
func pad(text string, width int) string {
	return printable.Pad(printable.Shorten(text, max(width, 0)), width)
}

// styler emphasises text. Whatever colours tell is told by words too.
type styler struct{ color bool }

func (styler) bold(s string) string    { return "\x1b[1m" + s + "\x1b[m" }
func (styler) reverse(s string) string { return "\x1b[7m" + s + "\x1b[m" }

func (s styler) colored(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[m"
}

// row colours a row that has a status by that.
func (s styler) row(line string, cells []string) string {
	switch {
	case slices.Contains(cells, string(inventory.Draining)):
		return s.colored("33", line)
	case slices.Contains(cells, string(inventory.Invalid)), slices.Contains(cells, string(inventory.Disallowed)):
		return s.colored("31", line)
	}
	return line
}
