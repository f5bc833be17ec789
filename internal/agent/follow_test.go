// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFollowed(t *testing.T) {
	f := followed{path: filepath.Join(t.TempDir(), "services.yaml")}
	if c := f.read(); !os.IsNotExist(c.err) {
		t.Errorf("got %v, want that there is no file", c.err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(f.path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	if c := f.read(); c.err != nil || string(c.text) != "one" {
		t.Fatalf("got %q, %v", c.text, c.err)
	}
	poll := func(want string) {
		t.Helper()
		if c, changed := f.poll(); string(c.text) != want || c.err != nil || changed != (want != "") {
			t.Errorf("got %q, %v, %v, want %q", c.text, c.err, changed, want)
		}
	}
	poll("")
	write("tw")
	poll("") // perhaps half of it
	write("two")
	poll("")
	poll("two")
	poll("")
	write("three")
	poll("")
	write("two")
	poll("") // as it was
	poll("")
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	poll("") // it may be about to be written anew
	if c, changed := f.poll(); !changed || !os.IsNotExist(c.err) {
		t.Errorf("got %v, %v, want that there is no file", c.err, changed)
	}
	poll("")
	write("two")
	poll("")
	poll("two") // the same as before, and usable again
	write(strings.Repeat("x", maxFile+1))
	if c := f.read(); c.err == nil || !strings.Contains(c.err.Error(), "longer than 16 MiB") {
		t.Errorf("got %v, want that it is too long", c.err)
	}
	f.path = t.TempDir()
	if c := f.read(); c.err == nil || !strings.Contains(c.err.Error(), "not a regular file") {
		t.Errorf("got %v, want that it is none", c.err)
	}
}
