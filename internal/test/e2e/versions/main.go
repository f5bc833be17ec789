// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command versions runs the end-to-end tests and those of the commands on versions of etcd, and
// prints a table of what works on each. It fails unless everything does.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/test/gotest"
)

func main() {
	write := flag.String("write", "", "the Markdown `file` that is written")
	flag.Parse()
	if err := run(flag.Args(), *write); err != nil {
		fmt.Fprintln(os.Stderr, "versions:", err)
		os.Exit(1)
	}
}

func run(versions []string, write string) error {
	if len(versions) == 0 {
		return errors.New("no version of etcd is given; usage: versions [-write FILE] 3.5 3.7")
	}
	var columns []*column
	works := true
	for _, version := range versions {
		c, err := test(version)
		if err != nil {
			return fmt.Errorf("etcd %s: %w", version, err)
		}
		columns = append(columns, c)
		works = works && c.works()
	}
	page := markdown(columns)
	fmt.Println(page[strings.Index(page, "## "):])
	if write != "" {
		if err := os.WriteFile(write, []byte(page), 0o644); err != nil {
			return err
		}
	}
	if !works {
		return errors.New("not everything works")
	}
	return nil
}

// test runs all tests on a version of etcd.
func test(version string) (*column, error) {
	cmd := exec.Command("go", arguments()...)
	cmd.Env = append(os.Environ(), "ROLLCALL_ETCD="+version)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &column{results: make(map[string]*result), notes: make(map[string]string)}
	failures := newFailures(os.Stderr, "etcd "+version)
	err = gotest.Read(out, os.Stderr, func(e gotest.Event) {
		c.take(e)
		failures.take(e)
	})
	return c, errors.Join(err, unlessFailed(cmd.Wait()))
}

// arguments are those of go: the packages of all features, and their tests. Those that choose their own etcd are left out.
func arguments() []string {
	args := []string{"test", "-json", "-count=1", "-timeout=20m", "-skip=^TestEtcd36"}
	var packages, tests []string
	for _, f := range append(slices.Clone(features), offers) {
		packages, tests = append(packages, "./"+f.pkg), append(tests, f.tests)
	}
	slices.Sort(packages)
	return append(append(args, "-run=^Test("+strings.Join(tests, "|")+")"), slices.Compact(packages)...)
}

// has reports whether an event is of the feature's tests.
func (f feature) has(e gotest.Event) bool {
	return e.Package == module+f.pkg && regexp.MustCompile("^Test("+f.tests+")").MatchString(e.Test)
}

// unlessFailed returns err unless it is that tests have failed, which the table tells.
func unlessFailed(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// failures prints what tests say that fail.
type failures struct {
	out   io.Writer
	of    string
	lines map[string][]string
}

func newFailures(out io.Writer, of string) *failures {
	return &failures{out, of, make(map[string][]string)}
}

func (f *failures) take(e gotest.Event) {
	const most = 40
	test := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if text, ok := e.Logged(); ok && len(f.lines[test]) < most {
			f.lines[test] = append(f.lines[test], text)
		}
	case "fail":
		fmt.Fprintf(f.out, "%s: FAIL %s\n%s\n", f.of, test, strings.Join(f.lines[test], "\n"))
	}
}
