// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/gotest"
)

// A version works if every feature has a test that passed, and none that failed.
func TestTable(t *testing.T) {
	c := &column{results: make(map[string]*result), notes: make(map[string]string)}
	take := func(pkg, action, test, output string) {
		c.take(gotest.Event{Action: action, Package: module + pkg, Test: test, Output: output})
	}
	take(offers.pkg, "output", "TestOffers", "    a_test.go:1: measured: : 3.5.1\n")
	take(offers.pkg, "output", "TestOffers", "    a_test.go:1: measured: quota: not known\n")
	for _, f := range features {
		first, _, _ := strings.Cut(f.tests, "|")
		take(f.pkg, "pass", "Test"+strings.TrimSuffix(first, "[0-9]")+"1", "")
	}
	if !c.works() {
		t.Fatalf("every feature has a test that passed: %v", c.results)
	}
	take("cmd/rollcall", "skip", "TestUsers/one", "")
	take("cmd/rollcall", "pass", "TestUsers/two", "")
	take("cmd/rollcall", "fail", "TestPing", "")
	take("other", "fail", "TestUsers", "")
	if c.works() {
		t.Error("a failed test does not count")
	}
	page := markdown([]*column{c, c})
	for _, want := range []string{"| | etcd 3.5.1 | etcd 3.5.1 |", "| quota | not known | not known |",
		"| `status`, `ping` | FAILS: TestPing |", "| `roles`, refusals | works, 1 tests; skipped: TestUsers/one |"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
}

// The output of what failed is printed, and no other.
func TestFailures(t *testing.T) {
	var out strings.Builder
	f := newFailures(io.Writer(&out), "etcd 3.5")
	for _, e := range []gotest.Event{
		{Action: "output", Package: "p", Test: "TestA", Output: "  a_test.go:1: why\n"},
		{Action: "output", Package: "p", Test: "TestB", Output: "  a_test.go:1: other\n"},
		{Action: "fail", Package: "p", Test: "TestA"},
		{Action: "pass", Package: "p", Test: "TestB"},
	} {
		f.take(e)
	}
	if want := "etcd 3.5: FAIL p TestA\nwhy\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
