// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"slices"
	"strings"
)

// column is one column of a list.
type column[T any] struct {
	title   string
	text    func(T) string
	compare func(a, b T) int // nil: rows are not sorted by it
}

// list is a table that can be searched, sorted and scrolled. The selection stays on a row while others
// come and go. Cells are made for the rows that are seen alone.
type list[T any] struct {
	columns []column[T]
	name    func(T) string // unique

	all      []T // sorted by name
	shown    []T
	filter   string
	sorted   int // the column
	reversed bool
	selected string // the name of the row
	at       int    // its index in shown; where it has gone, of the one that is there now
	top      int    // the index of the first that is seen
}

// scrolled is a list, whatever is in it.
type scrolled interface {
	move(by int)
	sortByNext()
	reverse()
	find(text string)
	searched() string
	order() string
	counts() (shown, all int)
	render(width, height int, style styler) []string
}

func (l *list[T]) fill(all []T) {
	l.all = all
	l.arrange()
}

// reset forgets what was searched for and where the selection was, and keeps the order.
func (l *list[T]) reset() { l.filter, l.selected, l.at, l.top, l.all, l.shown = "", "", 0, 0, nil, nil }

// arrange makes shown from all.
func (l *list[T]) arrange() {
	l.shown = l.all
	if l.filter != "" {
		l.shown = slices.DeleteFunc(slices.Clone(l.all), func(row T) bool { return !l.matches(row) })
	}
	if l.sorted > 0 || l.reversed {
		l.shown = slices.Clone(l.shown)
		compare := l.columns[l.sorted].compare
		slices.SortStableFunc(l.shown, func(a, b T) int {
			c := compare(a, b)
			if l.reversed {
				return -c
			}
			return c
		})
	}
	if row, ok := l.selection(); !ok || l.name(row) != l.selected {
		if i := slices.IndexFunc(l.shown, func(row T) bool { return l.name(row) == l.selected }); i >= 0 {
			l.at = i
		}
	}
	l.move(0)
}

// matches reports whether every word that is searched for is in a row.
func (l *list[T]) matches(row T) bool {
	var b strings.Builder
	for _, c := range l.columns {
		if c.compare != nil { // others are too expensive for every row
			b.WriteString(strings.ToLower(c.text(row)) + "\n")
		}
	}
	for _, word := range strings.Fields(strings.ToLower(l.filter)) {
		if !strings.Contains(b.String(), word) {
			return false
		}
	}
	return true
}

func (l *list[T]) move(by int) {
	l.at = min(max(l.at+by, 0), max(len(l.shown)-1, 0))
	l.selected = ""
	if row, ok := l.selection(); ok {
		l.selected = l.name(row)
	}
}

func (l *list[T]) selection() (row T, ok bool) {
	if l.at >= len(l.shown) {
		return row, false
	}
	return l.shown[l.at], true
}

func (l *list[T]) selectName(name string) {
	l.selected = name
	l.arrange()
}

func (l *list[T]) has(name string) bool {
	return slices.ContainsFunc(l.all, func(row T) bool { return l.name(row) == name })
}

func (l *list[T]) sortByNext() {
	for {
		l.sorted = (l.sorted + 1) % len(l.columns)
		if l.columns[l.sorted].compare != nil {
			break
		}
	}
	l.arrange()
}

func (l *list[T]) reverse() {
	l.reversed = !l.reversed
	l.arrange()
}

func (l *list[T]) find(text string) {
	l.filter = text
	l.arrange()
}

func (l *list[T]) searched() string { return l.filter }

func (l *list[T]) counts() (shown, all int) { return len(l.shown), len(l.all) }

// order tells how the list is sorted.
func (l *list[T]) order() string {
	text := "by " + strings.ToLower(l.columns[l.sorted].title)
	if l.reversed {
		text += ", reversed"
	}
	return text
}

// render returns a header and the rows around the selection, at most height lines.
func (l *list[T]) render(width, height int, style styler) []string {
	visible := max(height-1, 1)
	l.top = min(max(l.top, l.at-visible+1), l.at)
	l.top = max(min(l.top, len(l.shown)-visible), 0)
	seen := l.shown[l.top:min(l.top+visible, len(l.shown))]
	table := make([][]string, 0, len(seen)+1)
	header := make([]string, 0, len(l.columns))
	for _, c := range l.columns {
		header = append(header, c.title)
	}
	table = append(table, header)
	for _, row := range seen {
		cells := make([]string, 0, len(l.columns))
		for _, c := range l.columns {
			cells = append(cells, c.text(row))
		}
		table = append(table, cells)
	}
	lines := layOut(table, width-len(marker))
	for i := range lines {
		switch {
		case i == 0:
			lines[i] = style.bold("  " + lines[i])
		case l.top+i-1 == l.at:
			lines[i] = style.reverse(marker + lines[i])
		default:
			lines[i] = style.row("  "+lines[i], table[i])
		}
	}
	return lines
}

// marker stands before the selected row.
const marker = "> "

// by compares rows by a value.
func by[T any, V cmp.Ordered](value func(T) V) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(value(a), value(b)) }
}

// most compares rows by a value, the greatest first.
func most[T any, V cmp.Ordered](value func(T) V) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(value(b), value(a)) }
}
