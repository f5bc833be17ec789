// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// document is what a browser makes of a page and of its events, as htmx does: by their ids.
type document struct {
	t       testing.TB
	version uint64
	pieces  map[string]string
	rows    []string // ids
	html    map[string]string
}

var (
	rowPattern   = regexp.MustCompile(`<tr id="([^"]+)" class="[^"]*"(?: hx-swap-oob="true")?>(.*?)</tr>`)
	tablePattern = regexp.MustCompile(`<template><tbody hx-swap-oob="(innerHTML|afterbegin|afterend):#([^"]+)">(.*?)</tbody></template>`)
	outerPattern = regexp.MustCompile(`^<template>(<tr id="[^"]+" class="[^"]*" hx-swap-oob="true">.*?</tr>)</template>`)
	cellPattern  = regexp.MustCompile(`^<template>((?:<td id="[^"]+" hx-swap-oob="true">[^<]*</td>)+)</template>`)
	gonePattern  = regexp.MustCompile(`^<template><tr id="([^"]+)" hx-swap-oob="delete"></tr></template>`)
	piecePattern = regexp.MustCompile(`^<div hx-swap-oob="innerHTML:#([^"]+)">([^<]*)</div>`)
	cellsPattern = regexp.MustCompile(`<td id="([^"]+)" hx-swap-oob="true">([^<]*)</td>`)
)

func load(t testing.TB, l *live) *document {
	d := &document{t: t, html: make(map[string]string)}
	var rows string
	d.pieces, rows, d.version, _ = l.page()
	d.insert(0, rows)
	return d
}

func (d *document) insert(at int, html string) {
	var ids []string
	for _, m := range rowPattern.FindAllStringSubmatch(html, -1) {
		if slices.Contains(d.rows, m[1]) {
			d.t.Fatalf("row %s is inserted twice", m[1])
		}
		ids = append(ids, m[1])
		d.html[m[1]] = m[2]
	}
	d.rows = slices.Insert(d.rows, at, ids...)
}

// catchUp applies what is sent to a reader of the document's version.
func (d *document) catchUp(l *live) {
	events, version, _ := l.since(d.version)
	d.version = version
	for event := range strings.SplitSeq(strings.TrimSuffix(string(events), "\n\n"), "\n\n") {
		for line := range strings.SplitSeq(event, "\n") {
			if html, ok := strings.CutPrefix(line, "data: "); ok {
				d.apply(html)
			}
		}
	}
}

func (d *document) apply(html string) {
	for html != "" {
		var m []string
		switch {
		case match(piecePattern, html, &m):
			d.pieces[m[1]] = m[2]
		case match(gonePattern, html, &m):
			i := slices.Index(d.rows, m[1])
			if i < 0 {
				d.t.Fatalf("row %s is deleted but not there", m[1])
			}
			d.rows = slices.Delete(d.rows, i, i+1)
		case match(outerPattern, html, &m):
			r := rowPattern.FindStringSubmatch(m[1])
			if !slices.Contains(d.rows, r[1]) {
				d.t.Fatalf("row %s is replaced but not there", r[1])
			}
			d.html[r[1]] = r[2]
		case match(cellPattern, html, &m):
			for _, c := range cellsPattern.FindAllStringSubmatch(m[1], -1) {
				id := strings.TrimPrefix(c[1], "t")
				body, _, _ := strings.Cut(d.html[id], "<td")
				d.html[id] = body + `<td id="` + c[1] + `">` + c[2] + `</td>`
			}
		case match(tablePattern, html, &m):
			switch m[1] {
			case "innerHTML":
				d.rows = nil
				d.insert(0, m[3])
			case "afterbegin":
				d.insert(0, m[3])
			default:
				i := slices.Index(d.rows, m[2])
				if i < 0 {
					d.t.Fatalf("rows are put behind %s, which is not there", m[2])
				}
				d.insert(i+1, m[3])
			}
		default:
			d.t.Fatalf("not understood: %.200s", html)
		}
		html = html[len(m[0]):]
	}
}

func match(p *regexp.Regexp, html string, m *[]string) bool {
	at := p.FindStringSubmatchIndex(html)
	if at == nil || at[0] != 0 {
		return false
	}
	*m = p.FindStringSubmatch(html)
	return true
}

// equal compares a document with what the page would be.
func (d *document) equal(l *live) {
	want := load(d.t, l)
	if !slices.Equal(d.rows, want.rows) {
		d.t.Fatalf("rows %v, want %v", d.rows, want.rows)
	}
	for _, id := range want.rows {
		if d.html[id] != want.html[id] {
			d.t.Fatalf("row %s is %q, want %q", id, d.html[id], want.html[id])
		}
	}
	for id, html := range want.pieces {
		if d.pieces[id] != html {
			d.t.Fatalf("piece %s is %q, want %q", id, d.pieces[id], html)
		}
	}
}

// TestReadersConverge: whatever versions a reader misses, it ends with what the page is.
func TestReadersConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLive()
		l.show(frame{})
		readers := []*document{load(t, l), load(t, l), load(t, l)}
		for range rapid.IntRange(1, 20).Draw(rt, "frames") {
			var f frame
			f.pieces = []piece{{"summary", fmt.Sprint(rapid.IntRange(0, 3).Draw(rt, "summary"))}}
			for id := range 60 {
				if rapid.Bool().Draw(rt, "there") {
					id := fmt.Sprintf("r%02d", id)
					f.rows = append(f.rows, row{id: id, html: fmt.Sprintf("value %d", rapid.IntRange(0, 2).Draw(rt, "value")),
						tail: []cell{{"t" + id, fmt.Sprint(rapid.IntRange(0, 2).Draw(rt, "tail"))}}})
				}
			}
			l.show(f)
			for _, reader := range readers {
				if rapid.Bool().Draw(rt, "reads") {
					reader.catchUp(l)
					reader.equal(l)
				}
			}
		}
		for _, reader := range readers {
			reader.catchUp(l)
			reader.equal(l)
		}
	})
}

// TestOnlyChangesAreSent: a change of one row of many is a small event, and no change is none.
func TestOnlyChangesAreSent(t *testing.T) {
	l := newLive()
	rows := make([]row, 1000)
	for i := range rows {
		rows[i] = row{id: fmt.Sprintf("r%03d", i), html: strings.Repeat("x", 300)}
	}
	l.show(frame{rows: rows})
	_, version, changed := l.since(0)
	l.show(frame{rows: rows})
	select {
	case <-changed:
		t.Error("an equal frame is a change")
	default:
	}
	next := slices.Clone(rows)
	next[500].html = "y"
	l.show(frame{rows: next})
	events, _, _ := l.since(version)
	if len(events) == 0 || len(events) > 300 {
		t.Errorf("one row in 1,000 makes events of %d bytes: %.400s", len(events), events)
	}
	if again, _, _ := l.since(version); &again[0] != &events[0] {
		t.Error("two readers of a version get different bytes")
	}
	if other, _, _ := l.since(version - 7); len(other) < 1000*300 {
		t.Error("a reader of an unknown version is not sent everything")
	}
}

// TestManyGone: a reader that has missed more removals than are remembered is sent everything.
func TestManyGone(t *testing.T) {
	l := newLive()
	var rows []row
	for i := range maxGone + 10 {
		rows = append(rows, row{id: fmt.Sprintf("r%06d", i), html: "x"})
	}
	l.show(frame{rows: rows})
	reader := load(t, l)
	for len(rows) > 1000 {
		rows = rows[1000:]
		l.show(frame{rows: rows})
	}
	reader.catchUp(l)
	reader.equal(l)
	if len(l.gone) > maxGone {
		t.Errorf("%d removed rows are remembered", len(l.gone))
	}
}

// TestCutShort: a reader whose stream breaks within a change ends with what the page is.
func TestCutShort(t *testing.T) {
	l := newLive()
	l.show(frame{})
	reader := load(t, l)
	var rows []row
	for i := range 10 * chunk {
		id := fmt.Sprintf("r%03d", i)
		rows = append(rows, row{id: id, html: "a", tail: []cell{{"t" + id, ""}}})
	}
	l.show(frame{rows: rows})
	reader.catchUp(l)
	next := slices.Clone(rows)
	for i := range next {
		next[i].html = "b"
	}
	next = append([]row{{id: "first", html: "new"}}, next...)
	l.show(frame{rows: next})
	events, _, _ := l.since(reader.version)
	first, _, _ := strings.Cut(string(events), "\n\n")
	for line := range strings.SplitSeq(first, "\n") {
		if html, ok := strings.CutPrefix(line, "data: "); ok {
			reader.apply(html)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			reader.version, _ = strconv.ParseUint(id, 10, 64)
		}
	}
	reader.catchUp(l)
	reader.equal(l)
}
