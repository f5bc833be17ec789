// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command faults reads what "go test -json" says of the end-to-end tests and prints the
// table of faults: one line a row, with what was measured and the verdict on Rollcall
// and, where it was asked, on etcd's own package. It fails unless every row holds.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/gotest"
)

func main() {
	write := flag.String("write", "", "a Markdown `file` whose table is written anew, between the lines <!-- faults --> and <!-- /faults -->")
	flag.Parse()
	outcomes, err := read(os.Stdin, os.Stderr)
	if err == nil {
		var holds bool
		holds, err = print(os.Stdout, outcomes)
		if err == nil && *write != "" {
			err = replace(*write, outcomes)
		}
		if err == nil && !holds {
			err = fmt.Errorf("not every row holds")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

// outcome is what the tests of a row came to, on Rollcall or on etcd's package.
type outcome struct {
	ran, failed, skipped bool
	reason               string // of a failure or a skip
	measured             []string
}

// outcomes are by row and side: "W1" is Rollcall's, "W1/etcd" etcd's.
type outcomes map[string]*outcome

func (o outcomes) of(id string) *outcome {
	if o[id] == nil {
		o[id] = &outcome{}
	}
	return o[id]
}

var testName = regexp.MustCompile(`^Test((?:Proxy|Etcd36)?[WGLA][0-9]+)`)

// side returns what a test speaks of, "" for nothing.
func side(test string) string {
	match := testName.FindStringSubmatch(test)
	if match == nil {
		return ""
	}
	if parts := strings.Split(test, "/"); slices.Contains(parts[1:], "etcd") {
		return match[1] + "/etcd"
	}
	return match[1]
}

// read takes events of "go test -json" in, and shows on progress how it goes.
func read(in io.Reader, progress io.Writer) (outcomes, error) {
	all := make(outcomes)
	err := gotest.Read(in, progress, func(event gotest.Event) {
		id := side(event.Test)
		if id == "" {
			if event.Action == "fail" {
				fmt.Fprintln(progress, "FAIL", event.Package, event.Test)
			}
			return
		}
		all.of(id).take(event)
		if event.Action == "fail" || event.Action == "pass" && !strings.Contains(event.Test, "/") {
			fmt.Fprintln(progress, event.Action, event.Test)
		}
	})
	return all, err
}

func (o *outcome) take(event gotest.Event) {
	switch event.Action {
	case "pass":
		o.ran = true
	case "fail":
		o.ran, o.failed = true, true
	case "skip":
		o.skipped = true
	}
	said, ok := event.Logged()
	if !ok {
		return
	}
	if measured, ok := event.Measured(); ok {
		o.measured = append(o.measured, measured)
	} else if verdict, ok := strings.CutPrefix(said, "verdict: "); ok {
		o.failed, o.reason = true, verdict
	} else if o.reason == "" {
		o.reason = said
	}
}

// verdict says in a word how a side did; etcd's package is not asked about every row.
func (o *outcome) verdict() string {
	switch {
	case o == nil:
		return "not asked"
	case o.failed:
		return "FAILS: " + shorten(o.reason)
	case o.skipped && !o.ran:
		return "skipped: " + shorten(o.reason)
	case !o.ran:
		return "no test ran"
	}
	if late := o.late(); len(late) > 0 {
		return "holds, late: " + strings.Join(late, "; ")
	}
	return "holds"
}

var figure = regexp.MustCompile(`^(.*): ([^ ]+), bound ([^ ]+)$`)

// timed parses a figure that has a bound.
func timed(measured string) (what string, took, bound time.Duration, ok bool) {
	match := figure.FindStringSubmatch(measured)
	if match == nil {
		return "", 0, 0, false
	}
	took, err := time.ParseDuration(match[2])
	bound, err2 := time.ParseDuration(match[3])
	return match[1], took, bound, err == nil && err2 == nil
}

// late returns what took longer than its bound, by more than a twentieth.
func (o *outcome) late() (late []string) {
	for _, m := range o.measured {
		if _, took, bound, ok := timed(m); ok && took > bound+bound/20 {
			late = append(late, fmt.Sprintf("%v of %v", took, bound.Round(time.Millisecond)))
		}
	}
	return late
}

// figures returns what was measured; of times that several tests took for the same thing,
// the longest.
func (o *outcome) figures() string {
	var all []string
	longest := make(map[string]time.Duration)
	at := make(map[string]int)
	for _, m := range o.measured {
		what, took, _, ok := timed(m)
		i, again := at[what]
		switch {
		case !ok:
			all = append(all, m)
		case !again:
			at[what] = len(all)
			all = append(all, m)
		case took > longest[what]:
			all[i] = m
		}
		longest[what] = max(longest[what], took)
	}
	return strings.Join(all, "; ")
}

func shorten(s string) string {
	const most = 110
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// print writes the table for a terminal, and reports whether every row holds.
func print(out io.Writer, all outcomes) (holds bool, err error) {
	holds = true
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range catalogue {
		fmt.Fprintf(w, "\n%s\n", s.title)
		for _, r := range s.rows {
			ours := all.of(r.id)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\tetcd's package: %s\n", r.id, r.promise, ours.figures(), ours.verdict(), all[r.id+"/etcd"].verdict())
			holds = holds && !ours.failed && (ours.ran || ours.skipped)
		}
	}
	return holds, w.Flush()
}

// replace writes the table anew in a Markdown file.
func replace(file string, all outcomes) error {
	const begin, end = "<!-- faults -->\n", "<!-- /faults -->"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", file, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(file, []byte(before+begin+markdown(all)+end+after), 0o644)
}

func markdown(all outcomes) string {
	var b strings.Builder
	for _, s := range catalogue {
		fmt.Fprintf(&b, "\n### %s\n\n| | what goes wrong | promise | measured | Rollcall | etcd's package |\n|---|---|---|---|---|---|\n", s.title)
		for _, r := range s.rows {
			ours, theirs := all.of(r.id), all[r.id+"/etcd"]
			cells := []string{r.id, r.fault, r.promise, ours.figures(), ours.verdict(), theirs.verdict()}
			if theirs != nil && !theirs.failed && len(theirs.measured) > 0 {
				cells[5] += ": " + theirs.figures()
			}
			for i, cell := range cells {
				cells[i] = strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(cell)
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
		}
	}
	b.WriteString("\n")
	return b.String()
}
