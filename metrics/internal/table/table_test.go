// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/metrics.md has a row for each metric, as it is.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `rollcall_[a-z_]+` \\| `rollcall\\..*").FindAllString(string(text), -1)
	if len(rows) != len(All) {
		t.Errorf("%d rows of %d metrics", len(rows), len(All))
	}
	types := map[Kind]string{Counter: "counter", Sum: "gauge", Gauge: "gauge", Histogram: "histogram"}
	for i, m := range All {
		var labels []string
		if m.Service {
			labels = append(labels, "`service`")
		}
		if m.Label != "" {
			labels = append(labels, "`"+m.Label+"`")
		}
		want := fmt.Sprintf("| `%s` | `%s` `%s` | %s | %s |", m.PrometheusName(), m.OTelName(), m.Unit, types[m.Kind], strings.Join(labels, ", "))
		want = strings.ReplaceAll(want, "|  |", "| |")
		if i < len(rows) && !strings.HasPrefix(rows[i], want) {
			t.Errorf("row %q, want it to begin with %q", rows[i], want)
		}
		if !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: help %q is no sentence", m.Name, m.Help)
		}
	}
}
