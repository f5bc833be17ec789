// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// From these on a cluster needs attention.
const (
	MuchQuota   = 0.8
	MuchLag     = 1000        // raft entries; etcd refuses writes at 5,000 that are not applied
	muchLatency = time.Second // of a call that reads nothing
)

// finding is something that is not as it should be.
type finding struct {
	level Level
	text  string
}

// judge returns how a cluster does, in one line: what is wrong, the worst first, then the rest.
func judge(r *Report) (Level, string) {
	answers := slices.DeleteFunc(slices.Clone(r.Members), func(m Member) bool { return !m.Answers() })
	if len(answers) == 0 {
		return Bad, nobody(r.Members)
	}
	findings := slices.Concat(quorum(r.Members), leadership(answers))
	for _, m := range r.Members {
		findings = append(findings, ofMember(m)...)
	}
	findings = append(findings, inVain(r.Silent)...)
	slices.SortStableFunc(findings, func(a, b finding) int { return severity(b.level) - severity(a.level) })
	level := OK
	var parts []string
	for _, f := range findings {
		parts = append(parts, f.text)
	}
	if len(findings) > 0 {
		level = findings[0].level
	}
	if len(answers) == len(r.Members) {
		parts = append(parts, fmt.Sprintf("%d of %s", len(answers), plural.Count(len(r.Members), "member answers", "members answer")))
	}
	if i := slices.IndexFunc(r.Members, func(m Member) bool { return m.Leader }); i >= 0 {
		parts = append(parts, "leader "+r.Members[i].Label())
	}
	return level, strings.Join(append(parts, database(answers)...), "; ")
}

// inVain judges the endpoints of the client that lead to no member.
func inVain(endpoints []SilentEndpoint) []finding {
	if len(endpoints) == 0 {
		return nil
	}
	names := make([]string, len(endpoints))
	for i, e := range endpoints {
		names[i] = e.Endpoint
	}
	return []finding{{Degraded, fmt.Sprintf("no member of the cluster answers at %s, %s", strings.Join(names, " and "),
		plural.Form(len(names), "an endpoint that was given", "endpoints that were given"))}}
}

func severity(l Level) int { return slices.Index([]Level{OK, Degraded, Bad}, l) }

func nobody(members []Member) string {
	switch len(members) {
	case 0:
		return "no endpoint was asked"
	case 1:
		return "etcd does not tell its status: " + members[0].Error
	}
	return fmt.Sprintf("none of %d members tells its status: %s", len(members), members[0].Error)
}

// quorum judges how many voting members answer.
func quorum(members []Member) []finding {
	voters, led := 0, false
	var silent []string
	for _, m := range members {
		led = led || m.leaderID != 0
		if m.Learner {
			continue
		}
		voters++
		if !m.Answers() {
			silent = append(silent, m.Label())
		}
	}
	if len(silent) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %s (%s)", len(silent), plural.Count(voters, "member does not answer", "members "+plural.Form(len(silent), "does", "do")+" not answer"),
		strings.Join(silent, ", "))
	switch spare := voters - len(silent) - (voters/2 + 1); {
	case spare < 0 && led:
		return []finding{{Degraded, text + ", but there is a leader: some may be unreachable from here only"}}
	case spare < 0:
		return []finding{{Bad, text + ": the quorum is lost"}}
	case spare == 0:
		return []finding{{Degraded, text + ": quorum holds, one more failure ends it"}}
	default:
		return []finding{{Degraded, fmt.Sprintf("%s: quorum holds, and survives %s", text, plural.Count(spare, "more failure", "more failures"))}}
	}
}

// leadership judges whether the members that answer follow one leader.
func leadership(answers []Member) (findings []finding) {
	var without []string
	leaders := make(map[uint64]bool)
	for _, m := range answers {
		if m.leaderID == 0 {
			without = append(without, m.Label())
		} else {
			leaders[m.leaderID] = true
		}
	}
	switch {
	case len(leaders) == 0:
		return []finding{{Bad, "no leader: etcd takes no writes and renews no leases"}}
	case len(leaders) > 1:
		findings = append(findings, finding{Degraded, "members name different leaders: an election is under way, or the network is split"})
	}
	if len(without) > 0 {
		findings = append(findings, finding{Degraded, strings.Join(without, ", ") + " knows no leader"})
	}
	return findings
}

// ofMember judges one member.
func ofMember(m Member) (findings []finding) {
	add := func(level Level, format string, args ...any) {
		findings = append(findings, finding{level, fmt.Sprintf(format, args...)})
	}
	for _, alarm := range m.Alarms {
		switch alarm {
		case "NOSPACE":
			add(Bad, "alarm NOSPACE of %s: etcd takes no writes until it is compacted, defragmented and disarmed", m.Label())
		case "CORRUPT":
			add(Bad, "alarm CORRUPT of %s: its data differs from that of the others", m.Label())
		default:
			add(Bad, "alarm %s of %s", alarm, m.Label())
		}
	}
	if used, _ := m.QuotaUsed(); used > MuchQuota {
		add(Degraded, "database of %s at %.0f %% of its quota", m.Label(), 100*used)
	}
	if m.Lag >= MuchLag {
		add(Degraded, "%s is %d raft entries behind the leader", m.Label(), m.Lag)
	}
	if m.Latency() >= muchLatency {
		add(Degraded, "%s takes %v to answer", m.Label(), m.Latency().Round(10*time.Millisecond))
	}
	for _, text := range m.Problems {
		if m.leaderID != 0 { // else leadership says so
			add(Degraded, "%s says: %s", m.Label(), text)
		}
	}
	return findings
}

// database tells how large the largest database is.
func database(answers []Member) []string {
	largest := slices.MaxFunc(answers, func(a, b Member) int { return cmp.Compare(a.DBSize, b.DBSize) })
	if largest.DBSize == 0 {
		return nil
	}
	if used, ok := largest.QuotaUsed(); ok {
		if used > MuchQuota {
			return nil // ofMember says so
		}
		return []string{"database at " + percent(used) + " of its quota"}
	}
	return []string{"database of " + Size(largest.DBSize)}
}

func percent(part float64) string {
	if part > 0 && part < 0.005 {
		return "less than 1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*part)
}

// Size returns bytes in a unit that is easy to read: 512 B, 20 kB, 1.5 GB.
func Size(bytes int64) string {
	const units = "kMGT"
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	size, unit := float64(bytes)/1000, 0
	for size >= 999.5 && unit < len(units)-1 {
		size, unit = size/1000, unit+1
	}
	if size < 9.95 {
		return fmt.Sprintf("%.1f %cB", size, units[unit])
	}
	return fmt.Sprintf("%.0f %cB", size, units[unit])
}
