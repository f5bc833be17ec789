// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// outcome is the result of a step.
type outcome struct {
	Name    string   `json:"name"`
	Promise string   `json:"promise"`
	Figures []figure `json:"figures"`
	Kept    bool     `json:"kept"`
	Error   string   `json:"error,omitempty"`
	Seconds float64  `json:"seconds"`

	// The same step with etcd's own package; nil without --compare.
	EtcdPackage *comparison `json:"etcdPackage,omitempty"`
}

// comparison is what another package than Rollcall made of a step.
type comparison struct {
	Figures []figure `json:"figures"`
	Kept    bool     `json:"kept"` // Rollcall's promise, which the package never made
	Error   string   `json:"error,omitempty"`
}

// figure is a measured value.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// text returns the value with its unit.
func (f figure) text() string {
	return strings.TrimSpace(fmt.Sprintf("%.6g %s", f.Value, f.Unit))
}

// stepWidth is how wide the first column of the table is, so that all of it fits 80 columns.
const stepWidth = 26

// demoTable is the outcomes as a table: a line a figure, beside the step and its promise.
func demoTable(outcomes []outcome) string {
	compared := len(outcomes) > 0 && outcomes[0].EtcdPackage != nil
	rows := [][]string{{"STEP", "MEASURED", "ROLLCALL", "ETCD'S OWN", "KEPT"}}
	for _, o := range outcomes {
		left := append([]string{o.Name}, wrap(o.Promise, stepWidth-2)...)
		for i := 0; i < len(left) || i < len(o.Figures); i++ {
			row := []string{" ", " ", " ", " ", " "}
			if i < len(left) {
				row[0] = strings.Repeat("  ", min(i, 1)) + left[i]
			}
			if i < len(o.Figures) {
				row[1], row[2], row[3] = o.Figures[i].Name, o.Figures[i].text(), o.EtcdPackage.text(o.Figures[i].Name)
			}
			if i == 0 {
				row[4] = yesNo(o.Kept)
			}
			rows = append(rows, row)
		}
	}
	if !compared {
		for i, row := range rows {
			rows[i] = append(row[:3:3], row[4])
		}
	}
	var b strings.Builder
	for line := range strings.Lines(table(rows...)) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	for _, o := range outcomes {
		if o.Error != "" {
			fmt.Fprintf(&b, "%s: %s\n", o.Name, safe(oneLine(o.Error)))
		}
		if o.EtcdPackage != nil && o.EtcdPackage.Error != "" {
			fmt.Fprintf(&b, "%s, with etcd's own package: %s\n", o.Name, safe(oneLine(o.EtcdPackage.Error)))
		}
	}
	return b.String()
}

// text returns the value of a figure, "-" where it has none.
func (c *comparison) text(name string) string {
	if c != nil {
		for _, f := range c.Figures {
			if f.Name == name {
				return f.text()
			}
		}
	}
	return "-"
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "NO"
}

// wrap breaks text into lines of at most so many bytes, between words.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}
