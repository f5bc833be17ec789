// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

type clusterStatus struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	*cluster.Report
	Services *serviceTotals `json:"services,omitempty"` // nil if they could not be listed
}

// serviceTotals count what all services have.
type serviceTotals struct {
	Services  int `json:"services"`
	Instances int `json:"instances"`
	Serving   int `json:"serving"`
	Draining  int `json:"draining"`
	Invalid   int `json:"invalid"` // and disallowed
	Leases    int `json:"leases"`  // that the instances are under
}

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how etcd and its members do",
		Long: "status asks every member of the etcd cluster, also those that --endpoints does not name,\n" +
			"and begins with one line: ok, degraded (it works, and needs attention) or bad. It shows\n" +
			"versions, who leads, how fast members answer, the database beside its quota, how many raft\n" +
			"entries (LAG) a member is behind, alarms, and what services have stored. What etcd does\n" +
			"not tell this user is left out, and a message says so. An endpoint of --endpoints at which\n" +
			"no member answers degrades the cluster: clients that try it first wait.\n\n" +
			"The exit code is 0 if the cluster is ok and 1 if it is degraded or bad. If no member tells\n" +
			"its status, it is 4 if none can be reached or answers in time, 5 if access is denied.",
		Example:     "  rollcall status\n  rollcall status -o json | jq -r '.members[] | select(.error).name'",
		Args:        usageArgs(cobra.NoArgs),
		Annotations: outputs("table", "wide", "json"),
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

func (a *app) status(ctx context.Context) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	s := clusterStatus{APIVersion: apiVersion, Kind: "ClusterStatus"}
	listing, cancel := a.deadline(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.Services, err = countServices(listing, client) })
	s.Report = cluster.Inspect(ctx, client, a.dialTimeout)
	if s.Err != nil {
		cancel()
		s.Summary = a.explain(s.Err)
	}
	wg.Wait()
	if cause := context.Cause(ctx); isSignal(cause) {
		return cause
	}
	if err != nil && s.Err == nil {
		s.Unknown = append(s.Unknown, "services: "+plain(err))
	}
	if err := a.printStatus(s); err != nil {
		return err
	}
	if grant := a.grant(); grant != "" && s.Err == nil {
		a.say("%s", grant)
	}
	switch {
	case s.Err != nil:
		return noStatus(s.Err)
	case s.Level != cluster.OK:
		return &exitError{code: exitOther}
	}
	return nil
}

func countServices(ctx context.Context, client *clientv3.Client) (*serviceTotals, error) {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return nil, err
	}
	snap, err := dir.ListPrefix(ctx, "")
	if err != nil {
		return nil, err
	}
	totals := new(serviceTotals)
	for _, s := range inventory.Services(snap) {
		totals.Services++
		totals.Instances += s.Instances
		totals.Serving += s.Serving
		totals.Draining += s.Draining
		totals.Invalid += s.LeftOut()
	}
	leases := make(map[clientv3.LeaseID]bool)
	for inst := range snap.All() {
		leases[inst.Lease] = true
	}
	delete(leases, clientv3.NoLease)
	totals.Leases = len(leases)
	return totals, nil
}

func (a *app) printStatus(s clusterStatus) error {
	if a.json() {
		return a.printJSON(s)
	}
	for _, unknown := range s.Unknown {
		a.say("not known: %s", unknown)
	}
	if s.Err != nil {
		return a.write(safe(string(s.Level)+": "+oneLine(s.Summary)) + "\n")
	}
	members := slices.Clone(s.Members)
	for _, silent := range s.Silent {
		members = append(members, cluster.Member{Endpoint: silent.Endpoint, Error: silent.Error + "; see " + a.label("endpoints")})
	}
	return a.write(safe(string(s.Level)+": "+s.Summary) + "\n\n" + a.fitted(memberRows(members, a.output == "wide")) + "\n" + table(storedRows(s)...))
}

// memberRows is the table of the members; the last column may be long.
func memberRows(members []cluster.Member, wide bool) [][]string {
	const extra = 7 // where the columns of -o wide are
	header := []string{"MEMBER", "ENDPOINT", "VERSION", "ROLE", "LATENCY", "DB", "QUOTA", "LAG", "PROBLEM"}
	if wide {
		header = slices.Insert(header, extra, "IN USE", "REVISION", "TERM", "RAFT INDEX", "APPLIED")
	}
	rows := [][]string{header}
	for _, m := range members {
		row := []string{m.Label(), m.Endpoint, m.Version, roleOf(m), "", "", "", "", problemOf(m)}
		if m.Answers() {
			row[4], row[5], row[7] = latencyText(m.Latency()), cluster.Size(m.DBSize), strconv.FormatUint(m.Lag, 10)
		}
		if used, ok := m.QuotaUsed(); ok {
			row[6] = fmt.Sprintf("%.0f%%", 100*used)
		}
		switch {
		case wide && !m.Answers():
			row = slices.Insert(row, extra, "", "", "", "", "")
		case wide:
			row = slices.Insert(row, extra, cluster.Size(m.DBInUse), strconv.FormatInt(m.Revision, 10), strconv.FormatUint(m.RaftTerm, 10),
				strconv.FormatUint(m.RaftIndex, 10), strconv.FormatUint(m.RaftApplied, 10))
		}
		rows = append(rows, row)
	}
	return rows
}

func roleOf(m cluster.Member) string {
	switch {
	case m.Leader:
		return "leader"
	case m.Learner:
		return "learner"
	case !m.Answers():
		return ""
	}
	return "follower"
}

func problemOf(m cluster.Member) string {
	problems := slices.Concat(m.Alarms, m.Problems)
	if m.Error != "" {
		problems = append(problems, m.Error)
	}
	return strings.Join(problems, "; ")
}

// storedRows is the table of what services have in etcd, and of all that it has.
func storedRows(s clusterStatus) [][]string {
	rows := [][]string{{"SERVICES", "INSTANCES", "SERVING", "DRAINING", "INVALID", "LEASES", "ALL KEYS", "ALL LEASES"}, make([]string, 8)}
	if t := s.Services; t != nil {
		copy(rows[1], []string{strconv.Itoa(t.Services), strconv.Itoa(t.Instances), strconv.Itoa(t.Serving), dash(t.Draining), dash(t.Invalid), strconv.Itoa(t.Leases)})
	}
	for i, n := range []*int64{s.Keys, s.Leases} {
		if n != nil {
			rows[1][6+i] = strconv.FormatInt(*n, 10)
		}
	}
	return rows
}

// latencyText returns a time with three digits or so: 412µs, 1.2ms, 35ms, 1.31s.
func latencyText(d time.Duration) string {
	for _, step := range []struct{ below, unit time.Duration }{
		{time.Millisecond, time.Microsecond}, {10 * time.Millisecond, 100 * time.Microsecond}, {time.Second, time.Millisecond},
	} {
		if d < step.below {
			return d.Round(step.unit).String()
		}
	}
	return d.Round(10 * time.Millisecond).String()
}
