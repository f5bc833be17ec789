// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package jsonscan reads JSON of the usual form, ASCII without escapes, in one pass and
// without allocating. It fails at anything else, which the caller then leaves to
// encoding/json. Where it does not fail it agrees with that.
package jsonscan

import "bytes"

// FieldSet finds names that come twice, of which encoding/json takes the last.
type FieldSet uint8

// Add fails the scanner if the field, 0 to 7, is in the set already.
func (f *FieldSet) Add(s *Scanner, field int) {
	if *f&(1<<field) != 0 {
		s.Fail()
	}
	*f |= 1 << field
}

// Scanner reads JSON. Once it has failed it reads nothing more.
type Scanner struct {
	text   []byte
	at     int
	first  bool // the object or array just entered has shown no element yet
	failed bool
}

// New returns a scanner that begins with text after prefix, which text must start with.
func New(text []byte, prefix int) Scanner { return Scanner{text: text, at: prefix} }

// Done reports whether all of the text was read, without failing.
func (s *Scanner) Done() bool {
	s.space()
	return !s.failed && s.at == len(s.text)
}

// Fail has the scanner fail.
func (s *Scanner) Fail() {
	s.failed, s.at = true, len(s.text)
}

// peek returns the next byte, 0 at the end.
func (s *Scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *Scanner) space() {
	for s.at < len(s.text) && s.text[s.at] <= ' ' {
		if c := s.text[s.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			s.Fail()
			return
		}
		s.at++
	}
}

// take reads one byte, which must be c.
func (s *Scanner) take(c byte) {
	if s.peek() != c {
		s.Fail()
		return
	}
	s.at++
}

// Literal reads text as it is.
func (s *Scanner) Literal(text string) {
	if !bytes.HasPrefix(s.text[s.at:], []byte(text)) {
		s.Fail()
		return
	}
	s.at += len(text)
}

// Enter begins an object or array, whose elements Next iterates over.
func (s *Scanner) Enter(open byte) {
	s.space()
	s.take(open)
	s.first = true
}

// Next reports whether another element follows; else the object or array has ended.
func (s *Scanner) Next(end byte) bool {
	s.space()
	if s.peek() == end {
		s.first = false
		s.at++
		return false
	}
	if !s.first {
		s.take(',')
		s.space()
	}
	s.first = false
	return !s.failed
}

// Name reads the name of an object's element, up to its value.
func (s *Scanner) Name() []byte {
	name := s.Text()
	s.space()
	s.take(':')
	s.space()
	return name
}

// plain are the bytes of a string that stand for themselves.
var plain = func() (plain [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// Text reads a string.
func (s *Scanner) Text() []byte {
	if s.peek() == '"' {
		rest := s.text[s.at+1:]
		for i, c := range rest {
			if plain[c] {
				continue
			}
			if c != '"' {
				break
			}
			s.at += i + 2
			return rest[:i]
		}
	}
	s.Fail()
	return nil
}

// Digits reads a whole number that is not negative, as it is written.
func (s *Scanner) Digits() []byte {
	rest := s.text[s.at:]
	n := 0
	for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
		n++
	}
	if n == 0 || n > 1 && rest[0] == '0' {
		s.Fail()
		return nil
	}
	s.at += n
	return rest[:n]
}

func (s *Scanner) number() {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else {
		s.digits()
	}
	if s.peek() == '.' {
		s.at++
		s.digits()
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		s.digits()
	}
}

func (s *Scanner) digits() {
	begin := s.at
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.at++
	}
	if s.at == begin {
		s.Fail()
	}
}

// maxDepth is the depth at which skip fails.
const maxDepth = 32

// Raw reads a value of any kind, as it is written.
func (s *Scanner) Raw() []byte {
	begin := s.at
	s.skip(0)
	return s.text[begin:s.at:s.at]
}

func (s *Scanner) skip(depth int) {
	if depth > maxDepth {
		s.Fail()
	}
	switch s.peek() {
	case '{':
		for s.Enter('{'); s.Next('}'); {
			s.Name()
			s.skip(depth + 1)
		}
	case '[':
		for s.Enter('['); s.Next(']'); {
			s.skip(depth + 1)
		}
	case '"':
		s.Text()
	case 't':
		s.Literal("true")
	case 'f':
		s.Literal("false")
	case 'n':
		s.Literal("null")
	default:
		s.number()
	}
}
