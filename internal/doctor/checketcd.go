// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// From these on etcd needs attention.
const (
	muchLatency     = 300 * time.Millisecond // an election begins after a second without the leader, by default
	muchSkew        = 5 * time.Second
	muchWaste       = 0.5  // of the database
	leastWaste      = 64e6 // bytes of database, where no quota is known
	wasteOfQuota    = 0.1  // what a wasteful database has of it, at least
	manyElections   = 4    // as the alerts of etcd's project have it
	electionsPeriod = time.Hour
)

var etcdChecks = []check{
	{"etcd-silent", Error, "Fewer members are left to answer, and clients that dial this one wait.",
		"See whether it runs and can be reached from here; take endpoints that do not exist out of --endpoints.", silentMembers},
	{"etcd-other-cluster", Error, "What is written there is not seen here: services seem to come and go with the endpoint that answers.",
		"Take the endpoint out of --endpoints, wherever it is set.", otherClusters},
	{"etcd-no-leader", Error, "etcd takes no writes and renews no leases: servers can neither register nor leave.",
		"Start members until a majority runs and reach each other.", noLeader},
	{"etcd-leader-changes", Warning, "Each election stops writes for a second or more; slow disks, slow networks and busy CPUs cause them.",
		"See the members' logs and disk latency (etcd_disk_wal_fsync_duration_seconds).", leaderChanges},
	{"etcd-alarm-nospace", Error, "etcd takes no writes: nothing can register, and what loses its lease cannot come back.",
		"Compact, defragment each member, and disarm the alarm. Then raise --quota-backend-bytes, or find out who writes so much.", alarms("NOSPACE")},
	{"etcd-alarm-corrupt", Error, "Members hold different data: clients see different servers, by the member that they ask.",
		"Replace the member whose data differs: see etcd's guide on data corruption.", alarms("CORRUPT")},
	{"etcd-quota", Warning, "At its quota etcd takes no writes, until somebody compacts, defragments and disarms it.",
		"Compact and defragment, or raise --quota-backend-bytes.", fullQuota},
	{"etcd-fragmented", Warning, "Space that is not in use counts towards the quota, and backups are as large as the file.",
		"Defragment the members, one at a time: each answers nobody meanwhile.", fragmented},
	{"etcd-lag", Warning, "It answers with old data where it may, and etcd refuses writes when members are too far behind.",
		"See its disk, CPU and network.", lagging},
	{"etcd-slow", Warning, "Registrations, keepalives and cold starts wait as long; leases end when keepalives are late.",
		"See the network on the way, and the member's disk and CPU.", slowMembers},
	{"etcd-advisory", Warning, "", "Upgrade etcd, one member at a time.", advised},
	{"etcd-end-of-life", Warning, "Faults and security holes that are found in it are not mended any more.",
		"Upgrade etcd by one minor version at a time.", endOfLife},
	{"etcd-versions-differ", Warning, "An upgrade has not been finished: the cluster has what its oldest member has, and members of an old version may have faults that you take for mended.",
		"Upgrade the other members.", differentVersions},
	{"etcd-clock-skew", Warning, "Tokens and certificates are valid by the clock; ages and logs mislead.",
		"See whether the hosts' time is synchronised (chronyc tracking, timedatectl).", skewed},
	{"etcd-loopback-url", Warning, "Clients that learn endpoints from the members (etcdctl --cluster, Sync of etcd's client) dial themselves.",
		"Start the member with --advertise-client-urls that other hosts can dial.", loopbackURLs},
}

func silentMembers(f *Facts) (found []Finding) {
	for _, m := range f.Cluster.Members {
		if m.Answers() || m.Refused {
			continue
		}
		what := fmt.Sprintf("etcd member %q does not answer at %s: %s", m.Label(), m.Endpoint, m.Error)
		if m.ID == "" {
			what = silentEndpoint(m.Endpoint, m.Error)
		}
		found = append(found, Finding{Member: nameOf(m), What: what, Commands: calls("rollcall status")})
	}
	for _, e := range f.Cluster.Silent {
		if e.Cluster == "" {
			found = append(found, Finding{Member: e.Endpoint, What: silentEndpoint(e.Endpoint, e.Error)})
		}
	}
	refused := slices.ContainsFunc(f.Cluster.Members, func(m cluster.Member) bool { return m.Refused })
	if f.Cluster.Err != nil && !refused {
		for i := range found {
			found[i].Why = "No member answers from here. If that is so everywhere, servers can neither register nor leave, and clients learn of nothing."
		}
	}
	return found
}

func silentEndpoint(endpoint, cause string) string {
	return fmt.Sprintf("etcd endpoint %q does not answer: %s", endpoint, cause)
}

// nameOf is the label of a member; of one that nobody knows, where it was asked.
func nameOf(m cluster.Member) string { return cmp.Or(m.Label(), m.Endpoint) }

func otherClusters(f *Facts) (found []Finding) {
	for _, e := range f.Cluster.Silent {
		if e.Cluster != "" {
			found = append(found, Finding{Member: e.Endpoint,
				What: fmt.Sprintf("etcd endpoint %q is of cluster %s, the others are of cluster %s", e.Endpoint, e.Cluster, f.Cluster.Cluster)})
		}
	}
	return found
}

func noLeader(f *Facts) []Finding {
	answering := f.answering()
	if len(answering) == 0 || f.led() {
		return nil
	}
	return []Finding{{What: fmt.Sprintf("no etcd member knows a leader; %d of %s", len(answering), plural.Count(len(f.Cluster.Members), "member answers", "members answer")),
		Commands: calls("rollcall status")}}
}

func leaderChanges(f *Facts) (found []Finding) {
	for _, m := range f.answering() {
		page, later := f.HTTP[m.ID], f.later(m.ID)
		allowed := manyElections * max(1, page.Uptime.Hours()/electionsPeriod.Hours())
		switch {
		case later != nil && later.RaftTerm > m.RaftTerm:
			return []Finding{{Member: m.Label(), What: fmt.Sprintf("etcd elected a leader while it was looked at: raft term %d, then %d", m.RaftTerm, later.RaftTerm)}}
		case page.LeaderChanges >= allowed:
			found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("etcd member %q has seen %.0f changes of leader in the %v since it started",
				m.Label(), page.LeaderChanges, page.Uptime.Round(time.Second))})
		}
	}
	return found[:min(len(found), 1)] // all members see the same
}

func alarms(kind string) func(*Facts) []Finding {
	return func(f *Facts) (found []Finding) {
		for _, m := range f.Cluster.Members {
			if !slices.Contains(m.Alarms, kind) {
				continue
			}
			finding := Finding{Member: m.Label(), What: fmt.Sprintf("alarm %s of etcd member %q", kind, m.Label())}
			if kind == "NOSPACE" {
				finding.What += fmt.Sprintf(", whose database has %s", cluster.Size(m.DBSize))
				finding.Commands = append(f.compactAndDefragment(), call("etcdctl alarm disarm"))
			}
			found = append(found, finding)
		}
		return found
	}
}

func fullQuota(f *Facts) (found []Finding) {
	for _, m := range f.answering() {
		quota := f.quota(m)
		if quota == 0 || float64(m.DBSize) < cluster.MuchQuota*float64(quota) || slices.Contains(m.Alarms, "NOSPACE") {
			continue
		}
		found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("the database of etcd member %q has %s, %.0f %% of its quota",
			m.Label(), cluster.Size(m.DBSize), 100*float64(m.DBSize)/float64(quota)),
			Commands: f.compactAndDefragment()})
	}
	return found
}

func (f *Facts) compactAndDefragment() [][]string {
	return [][]string{call("etcdctl compact", fmt.Sprint(f.Cluster.Revision)), call("etcdctl defrag --cluster")}
}

func fragmented(f *Facts) (found []Finding) {
	for _, m := range f.answering() {
		least := float64(leastWaste)
		if quota := f.quota(m); quota > 0 {
			least = min(least, wasteOfQuota*float64(quota))
		}
		size, waste := float64(m.DBSize), float64(m.DBSize-m.DBInUse)
		if size < least || waste < muchWaste*size || slices.Contains(m.Alarms, "NOSPACE") {
			continue
		}
		found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("%.0f %% of the database of etcd member %q, %s, are not in use",
			100*waste/size, m.Label(), cluster.Size(m.DBSize)),
			Commands: [][]string{append(call("etcdctl defrag"), "--endpoints="+m.Endpoint)}})
	}
	return found
}

func lagging(f *Facts) (found []Finding) {
	for _, m := range f.answering() {
		if later := f.later(m.ID); m.Lag >= cluster.MuchLag && (later == nil || later.Lag >= cluster.MuchLag) {
			found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("etcd member %q is %d raft entries behind the leader", m.Label(), m.Lag)})
		}
	}
	return found
}

func slowMembers(f *Facts) (found []Finding) {
	for _, m := range f.answering() {
		if latency := f.latencyOf(m); latency >= muchLatency {
			found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("etcd member %q takes %v to answer at %s",
				m.Label(), latency.Round(time.Millisecond), m.Endpoint)})
		}
	}
	return found
}

// byVersion returns the labels of the members that answer, by version, and the versions in order.
func (f *Facts) byVersion() (labels map[string][]string, versions []string) {
	labels = make(map[string][]string)
	for _, m := range f.answering() {
		labels[m.Version] = append(labels[m.Version], fmt.Sprintf("%q", m.Label()))
	}
	return labels, slices.Sorted(maps.Keys(labels))
}

func advised(f *Facts) (found []Finding) {
	labels, versions := f.byVersion()
	for _, text := range versions {
		v, ok := parseVersion(text)
		if !ok {
			continue
		}
		var ids, whats []string
		severity, target := Note, v
		for _, a := range advisories {
			fixed, affected := a.affects(v)
			if !affected {
				continue
			}
			ids, whats = append(ids, a.id), append(whats, a.what)
			if a.severity.Worse(severity) > 0 {
				severity = a.severity
			}
			if target.below(fixed) {
				target = fixed
			}
		}
		if len(ids) > 0 {
			found = append(found, Finding{Severity: severity,
				What: fmt.Sprintf("etcd %s of %s has known faults: %s", text, named(labels[text]), strings.Join(ids, ", ")),
				Why:  strings.Join(whats, "; ") + " (known on " + AdvisoriesAsOf + ").",
				Fix:  fmt.Sprintf("Upgrade etcd to %d.%d.%d or later, one member at a time.", target[0], target[1], target[2])})
		}
	}
	return found
}

func endOfLife(f *Facts) (found []Finding) {
	labels, versions := f.byVersion()
	for _, text := range versions {
		if v, ok := parseVersion(text); ok && (v.minor() == lastUnmaintained.minor() || v.below(lastUnmaintained)) {
			found = append(found, Finding{What: fmt.Sprintf("etcd %s of %s is no longer maintained", text, named(labels[text]))})
		}
	}
	return found
}

func differentVersions(f *Facts) []Finding {
	_, versions := f.byVersion()
	minors := make(map[string]bool)
	for _, text := range versions {
		if v, ok := parseVersion(text); ok {
			minors[v.minor()] = true
		}
	}
	if len(minors) < 2 {
		return nil
	}
	return []Finding{{What: "etcd members have different versions: " + strings.Join(versions, ", ")}}
}

func skewed(f *Facts) (found []Finding) {
	for _, m := range f.answering() {
		skew, way := f.HTTP[m.ID].Skew, "ahead of"
		if skew < 0 {
			skew, way = -skew, "behind"
		}
		if skew >= muchSkew {
			found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("the clock of etcd member %q is %v %s that of this host",
				m.Label(), skew.Round(time.Second), way)})
		}
	}
	return found
}

func loopbackURLs(f *Facts) (found []Finding) {
	if !slices.ContainsFunc(f.Client.Endpoints, func(endpoint string) bool { return !isLoopback(cluster.HostOf(endpoint)) }) {
		return nil // all is on this host
	}
	for _, m := range f.Cluster.Members {
		if len(m.ClientURLs) > 0 && !slices.ContainsFunc(m.ClientURLs, func(url string) bool { return !isLoopback(cluster.HostOf(url)) }) {
			found = append(found, Finding{Member: m.Label(), What: fmt.Sprintf("etcd member %q advertises %s, which leads other hosts to themselves",
				m.Label(), named(m.ClientURLs))})
		}
	}
	return found
}
