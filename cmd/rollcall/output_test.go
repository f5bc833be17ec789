// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/rollcall-grpc/rollcall/internal/printable"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

func TestFit(t *testing.T) {
	for _, row := range []struct {
		name  string
		width int
		want  string
	}{
		{"no limit", 0, "ID           ZONE  METADATA\nlonger-name  a     x=1 y=2\n"},
		{"wide enough", 27, "ID           ZONE  METADATA\nlonger-name  a     x=1 y=2\n"},
		{"the last column gives way", 24, "ID           ZONE  META…\nlonger-name  a     x=1 …\n"},
		{"to a mark", 20, "ID           ZONE  …\nlonger-name  a     …\n"},
		{"then the widest", 14, "ID     ZONE  …\nlong…  a     …\n"},
		{"as far as it goes", 3, "…  …  …\n…  a  …\n"},
	} {
		rows := [][]string{{"ID", "ZONE", "METADATA"}, {"longer-name", "a", "x=1 y=2"}}
		fit(rows, row.width)
		if got := table(rows...); got != row.want {
			t.Errorf("%s:\n%s\nwant\n%s", row.name, got, row.want)
		}
	}
}

// TestFitKeepsNames: a long value elsewhere costs neither an id nor an address.
func TestFitKeepsNames(t *testing.T) {
	rows := [][]string{{"ID", "ADDRESS", "ZONE", "VERSION", "METADATA"}, {"cart-1", "127.0.0.1:50051", strings.Repeat("z", 60), "v1", "x=1"}}
	fit(rows, 50)
	want := "ID      ADDRESS          ZONE           VERSION  …\ncart-1  127.0.0.1:50051  zzzzzzzzzzzz…  v1       …\n"
	if got := table(rows...); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What is cut has a mark, and no line is wider than the terminal where the columns leave room.
func TestFitKeepsToTheWidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns, width := rapid.IntRange(1, 6).Draw(t, "columns"), rapid.IntRange(20, 120).Draw(t, "width")
		whole := make([][]string, rapid.IntRange(1, 5).Draw(t, "rows"))
		rows := make([][]string, len(whole))
		for i := range rows {
			whole[i] = rapid.SliceOfN(rapid.String(), columns, columns).Draw(t, "row")
			rows[i] = append(rows[i], whole[i]...)
		}
		fit(rows, width)
		for line := range strings.Lines(table(rows...)) {
			if n := printable.Width(strings.TrimRight(line, " \n")); n > width {
				t.Fatalf("%q has %d cells, more than %d", line, n, width)
			}
		}
		for i := range rows {
			for j, cell := range rows[i] {
				if cell != safe(whole[i][j]) && !strings.HasSuffix(cell, "…") {
					t.Fatalf("%q became %q", whole[i][j], cell)
				}
			}
		}
	})
}

// A YAML parser reads what a JSON parser reads.
func TestYAMLIsTheSameValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "yes", "No", "null", "~", "1", "1e3", "0x1", "2026-01-02", "- a", "a: b", "a #b", "*a", "&a", "!a", "%a", "a\nb", "\u0085", "\U000e0001"}))
		scalar := rapid.OneOf(rapid.Map(texts, func(s string) any { return s }), rapid.Map(rapid.Int32(), func(n int32) any { return float64(n) }),
			rapid.Just[any](nil), rapid.Just[any](true))
		list := rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(l []any) any { return l })
		object := rapid.Map(rapid.MapOfN(texts, rapid.OneOf(scalar, list), 0, 3), func(m map[string]any) any { return m })
		lists := rapid.Map(rapid.SliceOfN(rapid.OneOf(scalar, list, object), 0, 3), func(l []any) any { return l })
		want := map[string]any{"kind": rapid.MapOfN(texts, rapid.OneOf(scalar, list, object, lists), 0, 3).Draw(t, "document")}
		var out logtest.Buffer
		if err := (&app{stdout: &out}).printYAML(want); err != nil {
			t.Fatal(err)
		}
		var got any
		if err := yaml.Unmarshal([]byte(out.String()), &got); err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
		var same any
		text, _ := json.Marshal(want)
		_ = json.Unmarshal(text, &same)
		if diff := cmp.Diff(same, got); diff != "" {
			t.Fatalf("differs (-JSON +YAML) in\n%s\n%s", out.String(), diff)
		}
		for line := range strings.Lines(out.String()) {
			if safe(strings.TrimSuffix(line, "\n")) != strings.TrimSuffix(line, "\n") {
				t.Fatalf("unprintable in %q", line)
			}
		}
	})
}
