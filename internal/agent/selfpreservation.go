// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"
)

// minAddresses is how many addresses have to fail together for the agent's own network to be suspected.
const minAddresses = 3

// probe is what the checks of an endpoint have found.
type probe struct {
	addr    string
	in      bool      // it has been healthy and was not taken out since
	failing bool      // in the latest run
	since   time.Time // since when it fails or passes
	passed  time.Time // when the last run that passed began; zero: none has
}

// mayBeNetwork reports whether an endpoint may fail because the agent's network does. Checks do not
// run at the same instant: a run that began before the endpoint was found to fail proves nothing. So a
// failure is the endpoint's own once another run has passed that began later, or where there are too few
// addresses for all to fail together. When all fail together, none counts.
func mayBeNetwork(of probe, all []probe) bool {
	last := lastPass(all)
	return of.since.After(last) && together(all, last, true) >= minAddresses || allFail(all)
}

// allFail reports whether no check passes, and enough addresses began to fail with no pass of any
// check in between.
func allFail(all []probe) bool {
	passes := func(p probe) bool { return !p.failing }
	return !slices.ContainsFunc(all, passes) && together(all, lastPass(all), false) >= minAddresses
}

// together counts the addresses of endpoints that began to fail after the last pass, and of those that
// pass as far as is known, if asked. What is out already says nothing of the network.
func together(all []probe, last time.Time, passing bool) int {
	addrs := make(map[string]bool)
	for _, p := range all {
		if p.failing && p.in && p.since.After(last) || passing && !p.failing {
			addrs[p.addr] = true
		}
	}
	return len(addrs)
}

func lastPass(all []probe) (last time.Time) {
	for _, p := range all {
		if p.passed.After(last) {
			last = p.passed
		}
	}
	return last
}
