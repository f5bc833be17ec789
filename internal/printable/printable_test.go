// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package printable

import (
	"errors"
	"testing"
)

func TestEscape(t *testing.T) {
	for _, tc := range []struct{ in, want, lines string }{
		{"eu-1 größe 東京", "eu-1 größe 東京", "eu-1 größe 東京"},
		{"a\x1b[2Jb", `a\x1b[2Jb`, `a\x1b[2Jb`},
		{"a\u202eb", `a\u202eb`, `a\u202eb`},
		{"a\nb\tc\rd", `a\nb\tc\rd`, "a\nb\tc" + `\rd`},
		{"\xff", `\xff`, `\xff`},
	} {
		if got := Escape(tc.in); got != tc.want {
			t.Errorf("Escape(%q) = %q, want %q", tc.in, got, tc.want)
		}
		if got := EscapeLines(tc.in); got != tc.lines {
			t.Errorf("EscapeLines(%q) = %q, want %q", tc.in, got, tc.lines)
		}
	}
}

func TestError(t *testing.T) {
	err := errors.New(`rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`)
	if got, want := Error(err), "dial tcp 127.0.0.1:1: connect: connection refused"; got != want {
		t.Errorf("Error = %q, want %q", got, want)
	}
}

// A wide character takes two cells of a terminal, a combining one none.
func TestWidths(t *testing.T) {
	for _, c := range []struct {
		text, short, padded string
		width               int
	}{
		{"", "", "      ", 0},
		{"abc", "abc", "abc   ", 3},
		{"abcdefg", "abc…", "abcdefg", 7},
		{"東京", "東京", "東京  ", 4},
		{"東京都", "東…", "東京都", 6},
		{"e\u0301te\u0301", "e\u0301te\u0301", "e\u0301te\u0301   ", 3},
	} {
		if got := Width(c.text); got != c.width {
			t.Errorf("Width(%q) = %d, want %d", c.text, got, c.width)
		}
		if got := Shorten(c.text, 4); got != c.short {
			t.Errorf("Shorten(%q, 4) = %q, want %q", c.text, got, c.short)
		}
		if got := Pad(c.text, 6); got != c.padded {
			t.Errorf("Pad(%q, 6) = %q, want %q", c.text, got, c.padded)
		}
	}
}
