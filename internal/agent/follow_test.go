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
	if _, err := f.read(); !os.IsNotExist(err) {
		t.Errorf("got %v, want that there is no file", err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(f.path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	if text, err := f.read(); err != nil || string(text) != "one" {
		t.Fatalf("got %q, %v", text, err)
	}
	poll := func(want string) {
		t.Helper()
		if text, changed := f.poll(); string(text) != want || changed != (want != "") {
			t.Errorf("got %q, %v, want %q", text, changed, want)
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
	poll("")
	write(strings.Repeat("x", maxFile+1))
	if _, err := f.read(); err == nil || !strings.Contains(err.Error(), "longer than 16 MiB") {
		t.Errorf("got %v, want that it is too long", err)
	}
}
