// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// apiVersion is the first field of every JSON document. From the first release on, fields may
// be added to it, but none changed or removed.
const apiVersion = "rollcall/v1"

func (a *app) json() bool { return a.output == "json" }

// printJSON writes a document, indented.
func (a *app) printJSON(v any) error { return a.writeJSON(v, "  ") }

// printLine writes a document on one line.
func (a *app) printLine(v any) error { return a.writeJSON(v, "") }

func (a *app) writeJSON(v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := a.stdout.Write(safeJSON(b.Bytes()))
	return err
}

// table lays out rows in columns. Cells are made safe; an empty one becomes "-".
func table(rows ...[]string) string {
	var widths []int
	cells := make([][]string, len(rows))
	for r, row := range rows {
		widths = append(widths, make([]int, max(len(row)-len(widths), 0))...)
		for i, cell := range row {
			cells[r] = append(cells[r], safe(cmp.Or(cell, "-")))
			widths[i] = max(widths[i], printable.Width(cells[r][i]))
		}
	}
	var b strings.Builder
	for _, row := range cells {
		for i, cell := range row[:len(row)-1] {
			b.WriteString(printable.Pad(cell, widths[i]) + columnGap)
		}
		b.WriteString(row[len(row)-1] + "\n")
	}
	return b.String()
}

// safe escapes unprintable characters, so that values in etcd cannot control the terminal.
func safe(s string) string { return printable.Escape(s) }

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// safeJSON escapes unprintable characters in a JSON text. The value stays the same: JSON has
// only ASCII outside of strings.
func safeJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == '\n' || r != utf8.RuneError && !unprintable(r):
			out = append(out, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out
}

// shorten cuts s to at most most characters.
func shorten(s string, most int) string { return printable.Shorten(s, most) }
