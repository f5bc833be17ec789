// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package gotest reads what "go test -json" prints.
package gotest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Event is a line of "go test -json".
type Event struct{ Action, Package, Test, Output string }

// Read calls take with each event. Other lines, which go prints besides, go to progress.
func Read(in io.Reader, progress io.Writer, take func(Event)) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			fmt.Fprintln(progress, lines.Text())
			continue
		}
		take(event)
	}
	return lines.Err()
}

// Logged returns what a test has logged, without the place; ok is false for other output.
func (e Event) Logged() (text string, ok bool) {
	line := strings.TrimSpace(e.Output)
	if e.Action != "output" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "{") {
		return "", false
	}
	if _, line, ok = strings.Cut(line, ".go:"); !ok {
		return "", false
	}
	_, text, ok = strings.Cut(line, ": ")
	return text, ok
}

// Measured returns the figure that lab.Note has logged; ok is false for other output.
func (e Event) Measured() (figure string, ok bool) {
	text, _ := e.Logged()
	return strings.CutPrefix(text, "measured: ")
}
