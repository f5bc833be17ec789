// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package printable makes text that people can be shown of what others have written, such as
// values in etcd, and of errors.
package printable

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// Escape escapes unprintable characters, so that text cannot control a terminal, nor turn its
// direction.
func Escape(s string) string { return escape(s, "") }

// EscapeLines is Escape for text of several lines: line feeds and tabs stay.
func EscapeLines(s string) string { return escape(s, "\n\t") }

func escape(s, but string) string {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(but, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

// Width returns how many cells of a terminal s takes: two for a wide character, such as one of Chinese.
func Width(s string) int { return ansi.StringWidth(s) }

// Shorten cuts s to at most most cells of a terminal, with a mark where it does.
func Shorten(s string, most int) string { return ansi.Truncate(s, most, "…") }

// Pad fills s up with spaces until it is width cells wide.
func Pad(s string, width int) string { return s + strings.Repeat(" ", max(width-Width(s), 0)) }

var (
	grpcPrefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)
	dialPrefix = regexp.MustCompile(`(?:last )?connection error: (?:desc = )?"(?:transport: )?(?:Error while dialing: )?((?:[^"\\]|\\.)*)"`)
)

// Error returns the text of an error without gRPC's prefixes.
func Error(err error) string {
	text := grpcPrefix.ReplaceAllString(err.Error(), "")
	return dialPrefix.ReplaceAllStringFunc(text, func(match string) string {
		inner := dialPrefix.FindStringSubmatch(match)[1]
		if unquoted, err := strconv.Unquote(`"` + inner + `"`); err == nil {
			return unquoted
		}
		return inner
	})
}
