// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures Rollcall, other libraries for the same purpose, and the limit: the
// cost of an etcd client that ignores what it receives. One real etcd serves the whole run.
// Each measurement is made in its own process, and another process writes, so that CPU time
// and memory are those of the measured client. The subjects of a scenario take turns, round by
// round; medians are compared.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// limit bounds a measurement. One that takes longer counts as not finished.
const limit = 25 * time.Second

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		child(os.Args[2:])
		return
	}
	quick := flag.Bool("quick", false, "one round of the short scenarios, in less than a minute")
	only := flag.String("only", "", "run the scenarios whose names match a `regexp`")
	rounds := flag.Int("rounds", 3, "how often each subject is measured, unless its scenario sets it")
	bars := flag.Bool("bars", false, "fail if Rollcall misses a bar")
	write := flag.String("write", "", "a `directory` whose benchmarks.md, benchmarks/results.json and plots are written")
	flag.Parse()
	names, err := regexp.Compile(*only)
	if err == nil {
		err = run(*quick, names, *rounds, *bars, *write)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(quick bool, names *regexp.Regexp, rounds int, bars bool, write string) error {
	remove, err := buildEtcd()
	if err != nil {
		return err
	}
	defer remove()
	etcd, err := startEtcd()
	if err != nil {
		return err
	}
	defer etcd.stop()
	began := time.Now()
	res := &results{Machine: thisMachine(), Began: began}
	for _, sc := range scenarios {
		if !names.MatchString(sc.name) || quick && sc.slow {
			continue
		}
		n := rounds
		if sc.rounds > 0 {
			n = sc.rounds
		}
		if quick {
			n = 1
			sc.subjects = slices.DeleteFunc(slices.Clone(sc.subjects), func(s string) bool { return extra[s] > 0 })
		}
		started := time.Now()
		if err := sc.measure(etcd.address, n, res); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s took %v\n", sc.name, time.Since(started).Round(time.Second))
	}
	res.Took = time.Since(began).Round(time.Second).String()
	missed := res.print(os.Stdout)
	if write != "" {
		if err := res.write(write); err != nil {
			return err
		}
	}
	if bars && missed > 0 {
		return fmt.Errorf("%d bars are missed", missed)
	}
	return nil
}

// measure runs all subjects of a scenario, round by round, in changing order.
func (sc scenario) measure(address string, rounds int, res *results) error {
	if sc.prepare != nil {
		w := writer{client: connect(address)}
		defer w.client.Close()
		for _, subject := range sc.subjects {
			sc.prepare(w, subject)
		}
	}
	tooSlow := make(map[string]bool)
	for round := range rounds {
		for i := range sc.subjects {
			subject := sc.subjects[(i+round)%len(sc.subjects)]
			most := cmp.Or(sc.few[subject], extra[subject])
			if tooSlow[subject] || most > 0 && round > 0 && round*most/rounds == (round-1)*most/rounds { // spread evenly
				continue
			}
			fmt.Fprintf(os.Stderr, "%s, round %d: %s\n", sc.name, round+1, subject)
			sample, err := sc.sample(address, subject)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				tooSlow[subject] = true
				res.add(sc, subject, nil)
			case err != nil && extra[subject] > 0:
				fmt.Fprintf(os.Stderr, "%s: %s: %v; this sample is left out\n", sc.name, subject, err)
			case err != nil:
				return fmt.Errorf("%s: %s: %w", sc.name, subject, err)
			default:
				res.add(sc, subject, sample)
			}
		}
	}
	return nil
}

// sample has the figures of one measurement, by metric.
type sample map[string]float64

// sample makes one measurement, in its own process.
func (sc scenario) sample(address, subject string) (got sample, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "child", "measure", address, sc.name, subject)
	var said strings.Builder
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, said.String())
	}
	return got, json.Unmarshal(out, &got)
}
