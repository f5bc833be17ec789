// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"strings"
)

// encoded is how Encode begins a value, which then needs no reading.
var encoded = []byte(`{"Op":0,"Addr":`)

// scanValue reads a value that is written as nearly all are: ASCII without escapes, each
// name once and as Encode spells it. It answers as encoding/json would, some thirty times
// faster, or says that it cannot tell. addr and metadata are parts of the value.
func scanValue(value []byte) (addr, metadata []byte, ok bool) {
	s := scanner{text: value}
	var seen fieldSet
	const op, address, metadataField = 0, 1, 2
	if bytes.HasPrefix(value, encoded) {
		s.at = len(encoded)
		addr = s.string()
		seen = 1<<op | 1<<address
	} else {
		s.enter('{')
	}
	for s.next('}') {
		switch name := s.name(); string(name) {
		case "Op":
			seen.add(&s, op)
			s.literal("0")
		case "Addr":
			seen.add(&s, address)
			addr = s.string()
		case "Metadata":
			seen.add(&s, metadataField)
			begin := s.at
			s.skip(0)
			metadata = s.text[begin:s.at:s.at]
		default:
			if likeField(name) {
				s.fail()
			}
			s.skip(0)
		}
	}
	s.space()
	if s.failed || s.at != len(value) || len(addr) == 0 || len(metadata) > MaxMetadata {
		return nil, nil, false
	}
	if string(metadata) == "null" {
		metadata = nil
	}
	return addr, metadata, true
}

// likeField says whether encoding/json would take a name for one of the value's fields.
func likeField(name []byte) bool {
	return strings.EqualFold(string(name), "Op") || strings.EqualFold(string(name), "Addr") || strings.EqualFold(string(name), "Metadata")
}

// scanAttributes reads metadata of the usual form, every field of the type and range that
// it should have, as parseAttributes does, or says that it cannot tell.
func scanAttributes(metadata []byte) (a Attributes, ok bool) {
	s := scanner{text: metadata}
	a.Weight = 1
	var seen fieldSet
	for s.enter('{'); s.next('}'); {
		switch string(s.name()) {
		case "weight":
			seen.add(&s, 0)
			a.Weight = s.weight()
		case "region":
			seen.add(&s, 1)
			a.Region = string(s.string())
		case "zone":
			seen.add(&s, 2)
			a.Zone = string(s.string())
		case "subzone":
			seen.add(&s, 3)
			a.Subzone = string(s.string())
		case "version":
			seen.add(&s, 4)
			a.Version = string(s.string())
		case "hash_key":
			seen.add(&s, 5)
			a.HashKey = string(s.string())
		case "status":
			seen.add(&s, 6)
			switch string(s.string()) {
			case "", StatusServing:
			case StatusDraining:
				a.Draining = true
			default:
				s.fail()
			}
		default:
			s.skip(0)
		}
	}
	s.space()
	return a, !s.failed && s.at == len(metadata)
}

// fieldSet finds names that come twice: which of them counts is not decided here.
type fieldSet uint8

func (f *fieldSet) add(s *scanner, field int) {
	if *f&(1<<field) != 0 {
		s.fail()
	}
	*f |= 1 << field
}

// scanner goes through JSON. At what it does not take it fails, for good.
type scanner struct {
	text   []byte
	at     int
	first  bool // the object or array just entered has shown no element yet
	failed bool
}

// fail ends the reading: nothing is left.
func (s *scanner) fail() {
	s.failed, s.at = true, len(s.text)
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.text) && s.text[s.at] <= ' ' {
		if c := s.text[s.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			s.fail()
			return
		}
		s.at++
	}
}

// take goes over one byte, which must be c.
func (s *scanner) take(c byte) {
	if s.peek() != c {
		s.fail()
		return
	}
	s.at++
}

func (s *scanner) literal(text string) {
	if !bytes.HasPrefix(s.text[s.at:], []byte(text)) {
		s.fail()
		return
	}
	s.at += len(text)
}

// enter begins an object or array, whose elements next then counts off.
func (s *scanner) enter(open byte) {
	s.space()
	s.take(open)
	s.first = true
}

func (s *scanner) next(end byte) bool {
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

// name reads an element's name and what parts it from the value.
func (s *scanner) name() []byte {
	name := s.string()
	s.space()
	s.take(':')
	s.space()
	return name
}

// asIs are the bytes of a string that stand for themselves.
var asIs = func() (asIs [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		asIs[c] = c != '"' && c != '\\'
	}
	return asIs
}()

func (s *scanner) string() []byte {
	s.take('"')
	rest := s.text[s.at:]
	for i, c := range rest {
		if asIs[c] {
			continue
		}
		if c != '"' {
			break
		}
		s.at += i + 1
		return rest[:i]
	}
	s.fail()
	return nil
}

// weight reads a whole number from 1 to 2^32-1.
func (s *scanner) weight() uint32 {
	begin, n := s.at, uint64(0)
	for c := s.peek(); '0' <= c && c <= '9' && n <= 1<<32; c = s.peek() {
		n = 10*n + uint64(c-'0')
		s.at++
	}
	if n == 0 || n > 1<<32-1 || s.text[begin] == '0' {
		s.fail()
	}
	return uint32(n)
}

func (s *scanner) number() {
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

func (s *scanner) digits() {
	begin := s.at
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.at++
	}
	if s.at == begin {
		s.fail()
	}
}

// deepest is how deep skip goes.
const deepest = 32

// skip goes over a value of any kind.
func (s *scanner) skip(depth int) {
	if depth > deepest {
		s.fail()
	}
	switch s.peek() {
	case '{':
		for s.enter('{'); s.next('}'); {
			s.name()
			s.skip(depth + 1)
		}
	case '[':
		for s.enter('['); s.next(']'); {
			s.skip(depth + 1)
		}
	case '"':
		s.string()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
}
