// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestDemoTable(t *testing.T) {
	outcomes := []outcome{
		{Name: "kill -9 of greeter-1", Promise: "calls under way may fail, no later one; gone within 5s", Kept: true,
			Figures: []figure{{"failed calls", 3, ""}, {"calls", 12345, ""}, {"gone after", 4.01, "s"}}},
		{Name: "greeter-4, greeter-5 join", Promise: "each called within 1 s", Error: "wait for 3 endpoints:\nit took too long",
			Figures: []figure{{"failed calls", 0, ""}, {"greeter-4 called after", 123.456789, "ms"}}},
	}
	const alone = `STEP                        MEASURED                ROLLCALL    KEPT
kill -9 of greeter-1        failed calls            3           yes
  calls under way may       calls                   12345
  fail, no later one; gone  gone after              4.01 s
  within 5s
greeter-4, greeter-5 join   failed calls            0           NO
  each called within 1 s    greeter-4 called after  123.457 ms
greeter-4, greeter-5 join: wait for 3 endpoints: it took too long
`
	if diff := cmp.Diff(alone, demoTable(outcomes)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	outcomes[0].EtcdPackage = &comparison{Figures: []figure{{"failed calls", 2, ""}, {"calls", 54321, ""}, {"gone after", 3.99, "s"}}, Kept: true}
	outcomes[1].EtcdPackage = &comparison{Figures: []figure{{"failed calls", 7, ""}}, Error: "it failed"}
	const both = `STEP                        MEASURED                ROLLCALL    ETCD'S OWN  KEPT
kill -9 of greeter-1        failed calls            3           2           yes
  calls under way may       calls                   12345       54321
  fail, no later one; gone  gone after              4.01 s      3.99 s
  within 5s
greeter-4, greeter-5 join   failed calls            0           7           NO
  each called within 1 s    greeter-4 called after  123.457 ms  -
greeter-4, greeter-5 join: wait for 3 endpoints: it took too long
greeter-4, greeter-5 join, with etcd's own package: it failed
`
	if diff := cmp.Diff(both, demoTable(outcomes)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The table of the steps as they are fits a terminal of 80 columns, whatever is measured.
func TestDemoTableFits(t *testing.T) {
	var outcomes []outcome
	for _, step := range demoSteps {
		outcomes = append(outcomes, outcome{Name: step.name, Promise: step.promise,
			Figures:     []figure{{"greeter-4 called after", 1234.5678, "ms"}, {"followed again after", 12.345, "s"}, {"calls", 123456, ""}},
			EtcdPackage: &comparison{Figures: []figure{{"greeter-4 called after", 1234.5678, "ms"}}}})
	}
	for line := range strings.Lines(demoTable(outcomes)) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
