// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// chunk is how many replacements are sent in one event: htmx takes time in proportion to the
	// square of their number.
	chunk = 32
	// maxGone is how many removed rows are remembered, for readers that missed their removal.
	maxGone = 4096
)

// piece is a part of a page outside of its table. Its id and its element stay.
type piece struct {
	id   string
	html string // what the element holds
}

// row is a row of a page's table.
type row struct {
	id    string // of the element; see rowID
	class string
	html  string // its cells
	tail  []cell // the last cells, which change with time alone
}

// cell is a table cell that is replaced without its row.
type cell struct {
	id   string
	html string // all of it, but for the id: see write
}

// frame is all of a page that changes.
type frame struct {
	pieces []piece
	rows   []row // in their order, which never changes for two rows that stay
}

// live is the changing part of a page, which any number of streams follow. Each is sent what has
// changed since the version that it has, however many versions it has missed.
type live struct {
	mu      sync.Mutex
	version uint64 // 0: nothing was shown yet
	floor   uint64 // the least version that differences can be told from
	pieces  []livePiece
	rows    []liveRow
	gone    []goneRow // the oldest first
	sent    map[uint64][]byte
	changed chan struct{} // closed by the next change
}

type livePiece struct {
	piece
	changed uint64 // the version that it is of
}

type liveRow struct {
	row
	came, changed, tailChanged uint64 // versions
}

type goneRow struct {
	id         string
	came, gone uint64 // versions
}

func newLive() *live { return &live{changed: make(chan struct{})} }

// show publishes a frame, unless it equals the last one.
func (l *live) show(f frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.version + 1
	if l.version == 0 {
		// Greater than what a view of the same page has had before this one, so that a reader of
		// that is told everything.
		v = uint64(time.Now().UnixNano())
		l.floor = v
	}
	pieces, changed := l.nextPieces(f.pieces, v)
	rows, rowsChanged := l.nextRows(f.rows, v)
	if !changed && !rowsChanged && l.version > 0 {
		return
	}
	l.version, l.pieces, l.rows, l.sent = v, pieces, rows, make(map[uint64][]byte)
	if extra := len(l.gone) - maxGone; extra > 0 {
		l.floor = l.gone[extra-1].gone
		l.gone = append([]goneRow(nil), l.gone[extra:]...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *live) nextPieces(pieces []piece, v uint64) (next []livePiece, changed bool) {
	before := make(map[string]livePiece, len(l.pieces))
	for _, p := range l.pieces {
		before[p.id] = p
	}
	for _, p := range pieces {
		old := before[p.id]
		if old.piece != p {
			old, changed = livePiece{p, v}, true
		}
		next = append(next, old)
	}
	return next, changed
}

func (l *live) nextRows(rows []row, v uint64) (next []liveRow, changed bool) {
	before := make(map[string]*liveRow, len(l.rows))
	for i := range l.rows {
		before[l.rows[i].id] = &l.rows[i]
	}
	next = make([]liveRow, 0, len(rows))
	for _, r := range rows {
		n := liveRow{r, v, v, v}
		if old := before[r.id]; old != nil {
			delete(before, r.id)
			n.came = old.came
			if r.html == old.html && r.class == old.class {
				n.changed = old.changed
				if sameCells(r.tail, old.tail) {
					n.tailChanged = old.tailChanged
				}
			}
		}
		changed = changed || n.tailChanged == v
		next = append(next, n)
	}
	for i := range l.rows {
		if r := &l.rows[i]; before[r.id] != nil {
			l.gone = append(l.gone, goneRow{r.id, r.came, v})
			changed = true
		}
	}
	return next, changed
}

func sameCells(a, b []cell) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// page returns the frame as it is in a whole page, and its version. The channel is closed when
// there is another.
func (l *live) page() (pieces map[string]string, rows string, version uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pieces = make(map[string]string, len(l.pieces))
	for _, p := range l.pieces {
		pieces[p.id] = p.html
	}
	var b strings.Builder
	for i := range l.rows {
		l.rows[i].write(&b, "", "")
	}
	return pieces, b.String(), l.version, l.changed
}

// since returns server-sent events with what has changed since a version, and the version that a
// reader of them has. All readers of one version get the same bytes. The channel is closed by the
// next change.
func (l *live) since(version uint64) (events []byte, next uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if version == l.version {
		return nil, version, l.changed
	}
	if version < l.floor || version > l.version {
		version = 0
	}
	events, ok := l.sent[version]
	if !ok {
		events = l.eventsLocked(version)
		l.sent[version] = events
	}
	return events, l.version, l.changed
}

// eventsLocked renders what a reader of a version needs; version 0 is everything.
func (l *live) eventsLocked(version uint64) []byte {
	var e eventWriter
	for _, p := range l.pieces {
		if p.changed > version || version == 0 {
			e.add(fmt.Sprintf(`<div hx-swap-oob="innerHTML:#%s">%s</div>`, p.id, p.html))
		}
	}
	if version == 0 {
		var b strings.Builder
		for i := range l.rows {
			l.rows[i].write(&b, "", "")
		}
		e.add(`<template><tbody hx-swap-oob="innerHTML:#rows">` + b.String() + `</tbody></template>`)
		return e.end(l.version)
	}
	for _, g := range l.gone {
		if g.came <= version && version < g.gone {
			e.add(`<template><tr id="` + g.id + `" hx-swap-oob="delete"></tr></template>`)
		}
	}
	l.addRowsLocked(&e, version)
	return e.end(l.version)
}

// addRowsLocked adds the rows that came or changed after a version. Rows that came side by side
// are put behind the row before them together.
func (l *live) addRowsLocked(e *eventWriter, version uint64) {
	for i := 0; i < len(l.rows); i++ {
		switch r := &l.rows[i]; {
		case r.came > version:
			where := "afterbegin:#rows"
			if i > 0 {
				where = "afterend:#" + l.rows[i-1].id
			}
			var b strings.Builder
			for ; i < len(l.rows) && l.rows[i].came > version; i++ {
				l.rows[i].write(&b, "came", "")
			}
			i--
			e.add(`<template><tbody hx-swap-oob="` + where + `">` + b.String() + `</tbody></template>`)
		case r.changed > version:
			var b strings.Builder
			r.write(&b, "changed", ` hx-swap-oob="true"`)
			e.add(`<template>` + b.String() + `</template>`)
		case r.tailChanged > version:
			var b strings.Builder
			for _, c := range r.tail {
				c.write(&b, ` hx-swap-oob="true"`)
			}
			e.add(`<template>` + b.String() + `</template>`)
		}
	}
}

// write writes the row with a further class and attributes.
func (r *row) write(b *strings.Builder, class, attributes string) {
	class = strings.TrimSpace(r.class + " " + class)
	b.WriteString(`<tr id="` + r.id + `" class="` + class + `"` + attributes + `>` + r.html)
	for _, c := range r.tail {
		c.write(b, "")
	}
	b.WriteString("</tr>")
}

func (c cell) write(b *strings.Builder, attributes string) {
	b.WriteString(`<td id="` + c.id + `"` + attributes + `>` + c.html + `</td>`)
}

// eventWriter makes server-sent events of replacements. The last one has the version. Those before
// it have version 0: a reader who has got but some of them is sent everything.
type eventWriter struct {
	out  bytes.Buffer
	html strings.Builder
	n    int
}

func (e *eventWriter) add(html string) {
	if e.n == chunk {
		e.flush(0)
	}
	e.html.WriteString(html)
	e.n++
}

func (e *eventWriter) flush(version uint64) {
	fmt.Fprintf(&e.out, "id: %d\n", version)
	for line := range strings.SplitSeq(strings.ReplaceAll(e.html.String(), "\r", ""), "\n") {
		e.out.WriteString("data: ")
		e.out.WriteString(line)
		e.out.WriteString("\n")
	}
	e.out.WriteString("\n")
	e.html.Reset()
	e.n = 0
}

func (e *eventWriter) end(version uint64) []byte {
	e.flush(version)
	return e.out.Bytes()
}
