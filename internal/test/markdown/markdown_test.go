// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package markdown

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got := parse("# A\n\n```sh\nls\n```\n\nIt prints\n\n```text\na\n```\n\n```sh\ntrue\n```\n\nA paragraph.\n\nAnother.\n\n```text\nb\n```\n")
	want := []Block{
		{Language: "sh", Text: "ls\n", Output: "a\n", Line: 3},
		{Language: "text", Text: "a\n", Line: 9},
		{Language: "sh", Text: "true\n", Line: 13},
		{Language: "text", Text: "b\n", Line: 21},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMatches(t *testing.T) {
	for _, row := range []struct {
		shown, printed string
		background     bool
		want           bool
	}{
		{"a  b\n", "a b\n", false, true},
		{"a b\n", "a c\n", false, false},
		{"a b\n", "a b\nc\n", false, false},
		{"a b\n", "a b\nc\n", true, true},
		{"AGE 3s\n", "AGE 1m20s\n", false, true},
		{"3 left\n", "4 left\n", false, false},
		{"at http://127.0.0.1:...; stop\n", "at http://127.0.0.1:4711; stop\n", false, true},
		{"a\n...\nz\n", "a\nb\nc\nz\n", false, true},
		{"a\n...\nz\n", "a\nb\n", false, false},
	} {
		if got := matches(row.shown, row.printed, row.background); got != row.want {
			t.Errorf("%q shown, %q printed: %t, want %t", row.shown, row.printed, got, row.want)
		}
	}
}

// TestShell: a block sees what the one before has set and begun, and what is begun in the background is awaited.
func TestShell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := NewShell(t, dir, "GREETING=hello")
	s.Run("doc.md", []Block{
		{Text: "name=world\n(sleep 0.3; touch later; echo done) &\n", Output: "done\n"},
		{Text: "echo $GREETING $name; ls\n", Output: "hello world\nlater\n"},
		{Text: "exec 5<>/dev/tcp/127.0.0.1/1 || true\n", Output: "...\n...refused\n...\n"},
	})
	if _, err := os.Stat(filepath.Join(dir, "later")); err != nil {
		t.Error(err)
	}
}

// TestShellFails: a command that fails and an output that differs are errors at once, and nothing is run twice.
func TestShellFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := NewShell(t, dir)
	for _, row := range []struct {
		block Block
		want  string
	}{
		{Block{Text: "echo once >>runs; false\ntrue\n", Output: "...\n"}, `"false" failed`},
		{Block{Text: "echo once >>runs; wc -l <runs\n", Output: "3\n"}, "the output differs from what the document shows"},
	} {
		if _, err := s.run(row.block); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v, want %s", row.block.Text, err, row.want)
		}
	}
	if runs := read(filepath.Join(dir, "runs")); runs != "once\nonce\n" {
		t.Errorf("%q was written, want a line of each block", runs)
	}
}
