// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package jsonscan

import (
	"encoding/json"
	"testing"
)

// read reads a whole text as a value.
func read(text string) (value string, ok bool) {
	s := New([]byte(text), 0)
	s.space()
	value = string(s.Raw())
	return value, s.Done()
}

func TestRaw(t *testing.T) {
	for text, want := range map[string]bool{
		`{"a":[1,-2.5e+3,{"b":null}],"c":"x"}`: true, ` [ ] `: true, `true`: true, `0`: true, `""`: true,
		`01`: false, `-`: false, `1.`: false, `1e`: false, `tru`: false, `[1,]`: false, `{"a"}`: false, `{"a":1,}`: false,
		`"\n"`: false, `"é"`: false, `"x`: false, `1 2`: false, ``: false, "\v1": false,
	} {
		if value, ok := read(text); ok != want {
			t.Errorf("%q: read %q, %v, want %v", text, value, ok, want)
		}
	}
}

func TestDigits(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "10": "10", "4294967296": "4294967296", "01": "", "-1": "", "": "", "x": ""} {
		s := New([]byte(text), 0)
		if got := string(s.Digits()); got != want || s.Done() != (want != "") {
			t.Errorf("%q: read %q, done %v, want %q", text, got, s.Done(), want)
		}
	}
}

func TestFieldSet(t *testing.T) {
	s := New(nil, 0)
	var seen FieldSet
	seen.Add(&s, 0)
	seen.Add(&s, 7)
	if !s.Done() {
		t.Error("failed at fields that come once")
	}
	if seen.Add(&s, 7); s.Done() {
		t.Error("did not fail at a field that comes twice")
	}
}

// FuzzRaw checks that what is read without failing is valid JSON.
func FuzzRaw(f *testing.F) {
	for _, text := range []string{`{"a":[1,-2.5e+3,{"b":null}],"c":"x"}`, `[`, `-0.0`, `{"a":1,"a":2}`, `{"":{}}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if value, ok := read(text); ok && (!json.Valid([]byte(text)) || !json.Valid([]byte(value))) {
			t.Errorf("%q: read %q, which is not JSON", text, value)
		}
	})
}
