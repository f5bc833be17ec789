// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// A history is a list of runs, one a second: the name of an endpoint in lower case for checks that
// passed, in upper case for checks that failed. Below each stands what becomes of it: "." where it passes
// or is out already, "-" where it goes out, "h" where it stays because it may be the network, "P"
// where it stays because all fail.
func TestSelfPreservation(t *testing.T) {
	for _, row := range []struct{ name, runs, want string }{
		{"one fails while others pass", "abc Abc Abc", "... h.. -.."},
		{"one fails, of two", "ab Ab Ab", ".. -. .."},
		{"all fail, of two", "ab AB AB", ".. -- .."},
		{"all fail, of three", "abc ABC ABC ABC", "... hhP PPP PPP"},
		{"all fail, of four", "abcd ABCD ABCD", ".... hhhP PPPP"},
		{"the network returns and so do all", "abc ABC ABC abc abc", "... hhP PPP ... ..."},
		{"one does not return with the network", "abc ABC ABc ABc ABc", "... hhP PP. --. ..."},
		{"the first to run returns", "abc ABC aBC abc", "... hhP .-- ..."},
		{"two fail, of three", "abc ABc ABc", "... hh. --."},
		{"one after the other, with passes between", "abc Abc Abc ABc ABc ABC ABC", "... h.. -.. .-. ... ..- ..."},
		{"one is out for long", "abcd Abcd Abcd ABCD ABCD", ".... h... -... .hhP .PPP"},
		{"one is out for long, of three", "abc Abc Abc Abc ABC ABC", "... h.. -.. ... .-- ..."},
		{"one that never passed does not count", "abX abX ABX ABX", "... ... --. ..."},
		{"three beside one that never passed", "abcX ABCX ABCX", ".... hhP. PPP."},
		{"an address counts once", "abb' ABB AB", ".... --. .."},
		{"none ever passed", "ABC ABC", "... ..."},
		{"one that rarely runs decides", "abcd ABC ABC d ABC", ".... hhh hhh . ---"},
		{"one that rarely runs fails, too", "abcd ABC ABC D ABC", ".... hhh hhh P PPP"},
	} {
		t.Run(row.name, func(t *testing.T) {
			now := time.Unix(1, 0)
			probes := make(map[string]*probe)
			var got strings.Builder
			for _, run := range row.runs {
				key := strings.ToLower(string(run))
				if key == " " {
					got.WriteString(" ")
					continue
				}
				now = now.Add(time.Second)
				if probes[key] == nil {
					probes[key] = &probe{addr: strings.ReplaceAll(key, "'", "b")} // "'" is at the address of b
				}
				got.WriteString(step(probes[key], key != string(run), now, probes))
			}
			if got.String() != row.want {
				t.Errorf("%s\ngot  %s\nwant %s", row.runs, got.String(), row.want)
			}
		})
	}
}

// step is a run of an endpoint whose first failure takes it out.
func step(p *probe, failed bool, now time.Time, probes map[string]*probe) string {
	if failed != p.failing || p.since.IsZero() {
		p.failing, p.since = failed, now
	}
	if !failed {
		p.passed, p.in = now, true
		return "."
	}
	var all []probe
	for _, key := range slices.Sorted(maps.Keys(probes)) {
		all = append(all, *probes[key])
	}
	switch {
	case !p.in:
		return "."
	case allFail(all):
		return "P"
	case mayBeNetwork(*p, all):
		return "h"
	}
	p.in = false
	return "-"
}

// What began to fail before the others stays as well when all fail: nothing is taken out then.
func TestAllFailTogether(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	early := probe{addr: "early", in: true, failing: true, since: at(5), passed: at(4)}
	all := []probe{early}
	for _, addr := range []string{"b", "c", "d"} {
		all = append(all, probe{addr: addr, in: true, failing: true, since: at(11), passed: at(10)})
	}
	if !mayBeNetwork(early, all) {
		t.Error("it is taken out although all fail")
	}
	all[1].failing = false
	if mayBeNetwork(early, all) {
		t.Error("it stays although another passes")
	}
}
