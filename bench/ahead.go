// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"slices"
)

// lead is a figure in which a peer is ahead of Rollcall.
type lead struct {
	title, metric, peer string
	theirs, mine        string
	reason
}

// reason explains leads: of peers, in metrics of scenarios, whose names match a regexp each.
type reason struct{ scenario, metric, peer, why, worth string }

// reasons are all that are known. The first that matches is taken.
var reasons = []reason{
	{`closed/.*|rate/(250|1000|2000)|rate-round_robin/250|rolling`, `.*p50|.*p99|ratio|lag|changes`, `.*`,
		"A burst is published less often than it changes, so some changes wait for those after them.", "No: it is some milliseconds, and saves the CPU of bursts."},
	{`cold.*|rate/1|rate/10|again`, `time|CPU`, goZero + "|" + goKit,
		"They decode nothing, keep no metadata and build no gRPC state.", "No."},
	{`cold.*/(1|100)`, `time`, theirs,
		"A client's first service asks for the service configs as well, in the same request; they have a goroutine of their own.", "No."},
	{`services|channels/100|memory/10`, `memory|goroutines`, theirs + "|" + goZero,
		"A service has a reflector, a store and its service config beside its watch; a third is the stack of a goroutine.", "Yes, in part."},
	{`memory/.*|channels/100|services/.*`, `memory`, goZero + "|" + goKit,
		"They keep addresses alone: no metadata, revisions or leases.", "No."},
	{`xds/burst`, `bytes|CPU|lag`, linear + "|" + snapshots,
		"Pushes are as far apart as they cost; a cache waits for each client to accept the last one instead, and a slow one sends less.", "No: new streams are answered meanwhile."},
	{`xds/.*`, `time`, linear + "|" + snapshots,
		"Acknowledgements and new streams are taken in during a push, not after it.", "No: within the bars."},
	{`registering`, `register|CPU`, theirs + "|" + goZero,
		"Rollcall writes a key only if it is as expected; the others put it blindly.", "No."},
	{`registered`, `watches`, theirs,
		"Rollcall's watches tell it of keys that are gone; etcd's manager never notices.", "No."},
}

// ahead returns where a peer is ahead by more than a tenth, and by more than the noise: the
// quartiles do not overlap, and metric.least. Fewer than three samples do not show noise: there it is more than a half.
func (r *results) ahead() (all []lead) {
	for _, o := range r.Scenarios {
		for _, metric := range o.scenario.metrics {
			for _, m := range o.ordered() {
				if slices.Contains([]string{theirs, goZero, goKit, linear, snapshots}, m.Subject) && !metric.note && m.beats(o.of(ours), metric) {
					all = append(all, lead{o.scenario.title, metric.name, m.Subject, figure(m.median(metric.name), metric.unit),
						figure(o.of(ours).median(metric.name), metric.unit), reasonOf(o.Name, metric.name, m.Subject)})
				}
			}
		}
	}
	return all
}

func (m *measured) beats(o *measured, metric metric) bool {
	if m.Unended || o == nil {
		return false
	}
	less, more := m, o
	if metric.more {
		less, more = o, m
	}
	factor := 0.9
	if len(m.Samples) < 3 || len(o.Samples) < 3 && !o.Unended {
		factor = 1 / 1.5
	}
	low, high := less.median(metric.name), more.median(metric.name)
	return low < high*factor && high-low > metric.least && less.apart(more, metric.name)
}

// apart reports whether a metric is less than another's, and the quartiles do not overlap.
func (m *measured) apart(o *measured, metric string) bool {
	return m.quantile(metric, 0.75) < o.quantile(metric, 0.25)
}

func reasonOf(names ...string) reason {
	for _, r := range reasons {
		match := true
		for i, pattern := range []string{r.scenario, r.metric, r.peer} {
			match = match && regexp.MustCompile("^(?:"+pattern+")$").MatchString(names[i])
		}
		if match {
			return r
		}
	}
	return reason{why: "No reason known.", worth: "To be found out."}
}
