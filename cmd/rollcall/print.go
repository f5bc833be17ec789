// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
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
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, len(columnGap), ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			if cell == "" {
				cell = "-"
			}
			fmt.Fprint(w, safe(cell))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
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
