// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every row has a test of its name, and every such test has a row.
func TestEveryRowHasATest(t *testing.T) {
	tested := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				tested[side(f.Name.Name)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(tested, "")
	for _, s := range catalogue {
		for _, r := range s.rows {
			if !tested[r.id] {
				t.Errorf("no test of row %s: %s", r.id, r.fault)
			}
			delete(tested, r.id)
		}
	}
	for id := range tested {
		t.Errorf("a test of row %s, which the catalogue lacks", id)
	}
}

const sample = `{"Action":"run","Test":"TestW1Compacted"}
go: downloading something
{"Action":"output","Test":"TestW1Compacted/rollcall","Output":"    watch_test.go:44: measured: live after mending: 240ms, bound 1s\n"}
{"Action":"output","Test":"TestW1Compacted/rollcall","Output":"    watch_test.go:44: measured: live after mending: 90ms, bound 1s\n"}
{"Action":"output","Test":"TestW1Compacted/rollcall","Output":"    watch_test.go:45: measured: 3 states\n"}
{"Action":"pass","Test":"TestW1Compacted/rollcall"}
{"Action":"output","Test":"TestW1Compacted/etcd","Output":"    faults.go:42: verdict: the watch channel was closed\n"}
{"Action":"pass","Test":"TestW1Compacted/etcd"}
{"Action":"pass","Test":"TestW1Compacted"}
{"Action":"output","Test":"TestW2Between","Output":"    watch_test.go:60: no snapshot | live\n"}
{"Action":"fail","Test":"TestW2Between"}
{"Action":"output","Test":"TestW5DataLost","Output":"    watch_test.go:80: measured: the new set: 1.04s, bound 1s\n"}
{"Action":"pass","Test":"TestW5DataLost"}
{"Action":"output","Test":"TestW6Restored","Output":"    watch_test.go:90: measured: found: 1.2s, bound 1s\n"}
{"Action":"pass","Test":"TestW6Restored"}
{"Action":"output","Test":"TestW3Partition","Output":"    partition.go:9: not root\n"}
{"Action":"skip","Test":"TestW3Partition"}
{"Action":"pass","Test":"TestProxyW1Compacted"}
{"Action":"pass","Test":"TestOther"}
`

func TestTable(t *testing.T) {
	all, err := read(strings.NewReader(sample), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{
		"W1": "holds", "W1/etcd": "FAILS: the watch channel was closed", "W2": "FAILS: no snapshot | live",
		"W3": "skipped: not root", "ProxyW1": "holds", "W4": "no test ran", "W5": "holds", "W6": "holds, late: 1.2s of 1s", "W4/etcd": "not asked",
	} {
		o := all[id]
		if o == nil && !strings.Contains(id, "/") {
			o = all.of(id)
		}
		if got := o.verdict(); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if got := all["W1"].figures(); got != "live after mending: 240ms, bound 1s; 3 states" {
		t.Errorf("measured %q", got)
	}
	if holds, err := print(io.Discard, all); holds || err != nil {
		t.Errorf("holds: %v, %v", holds, err)
	}
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("before\n<!-- faults -->\nstale table\n<!-- /faults -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := replace(file, all); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), "stale table") || !strings.HasPrefix(string(text), "before\n") || !strings.HasSuffix(string(text), "-->\nafter\n") ||
		strings.Count(string(text), "| W1 |") != 1 || !strings.Contains(string(text), `no snapshot \| live`) {
		t.Errorf("%v, the file became:\n%s", err, text)
	}
}
