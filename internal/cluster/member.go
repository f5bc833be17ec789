// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// fill makes the members of a report from the answers: those of the member list and, where there
// is none, those that answered.
func (q *inquiry) fill(r *Report, alarms []*pb.AlarmMember) {
	best := q.best(r)
	if q.cluster != 0 {
		r.Cluster = hex(q.cluster)
	}
	for _, m := range q.members() {
		r.Members = append(r.Members, q.member(m, best[m.ID]))
		delete(best, m.ID)
	}
	for id, a := range best { // the list is not known, or does not have it yet
		r.Members = append(r.Members, q.member(&pb.Member{ID: id}, a))
	}
	if len(r.Members) == 0 {
		for _, a := range q.answers {
			r.Members = append(r.Members, Member{Endpoint: a.endpoint, Error: plain(a.err), Refused: Refused(a.err)})
		}
	}
	for _, a := range alarms {
		for i := range r.Members {
			if r.Members[i].id == a.MemberID && a.Alarm != pb.AlarmType_NONE {
				r.Members[i].Alarms = append(r.Members[i].Alarms, a.Alarm.String())
			}
		}
	}
	for _, m := range r.Members {
		r.Revision = max(r.Revision, m.Revision)
	}
	if i := slices.IndexFunc(r.Members, func(m Member) bool { return m.Answers() && m.DBQuota == 0 }); i >= 0 {
		q.unknown("quota", fmt.Errorf("etcd %s does not tell it, 3.6 and newer do", r.Members[i].Version))
	}
	measureLag(r.Members)
	slices.SortFunc(r.Members, func(a, b Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.id, b.id), strings.Compare(a.Endpoint, b.Endpoint))
	})
}

// best returns the quickest answer of each member.
func (q *inquiry) best(r *Report) map[uint64]*answer {
	best := make(map[uint64]*answer)
	var denied error
	for i := range q.answers {
		a := &q.answers[i]
		if a.status == nil {
			r.Err = cmp.Or(r.Err, a.err)
			continue
		}
		if a.members == nil {
			denied = a.err
		}
		id := a.status.Header.MemberId
		if known := best[id]; known == nil || a.latency < known.latency {
			best[id] = a
		}
	}
	if len(best) > 0 {
		r.Err = nil
	}
	if denied != nil && q.members() == nil {
		q.unknown("members", denied)
	}
	return best
}

// member returns what is known of a member; a is nil if it did not answer.
func (q *inquiry) member(m *pb.Member, a *answer) Member {
	row := Member{ID: hex(m.ID), Name: m.Name, Learner: m.IsLearner, ClientURLs: m.ClientURLs, id: m.ID}
	if a == nil {
		row.Endpoint, row.Error, row.Refused = q.silence(m)
		return row
	}
	s := a.status
	row.Endpoint, row.LatencySeconds = a.endpoint, a.latency.Seconds()
	row.Version, row.Learner = s.Version, s.IsLearner
	row.DBSize, row.DBInUse, row.DBQuota = s.DbSize, s.DbSizeInUse, s.DbSizeQuota
	row.Revision, row.RaftTerm, row.RaftIndex, row.RaftApplied = s.Header.Revision, s.RaftTerm, s.RaftIndex, s.RaftAppliedIndex
	row.Leader, row.Led, row.leaderID = s.Leader == m.ID, s.Leader != 0, s.Leader
	for _, text := range s.Errors {
		if !strings.Contains(text, "alarm:") { // Alarms has these
			row.Problems = append(row.Problems, text)
		}
	}
	return row
}

// silence returns where a member without an answer was asked, what came of it, and whether that is a refusal.
func (q *inquiry) silence(m *pb.Member) (endpoint, cause string, refused bool) {
	if len(m.ClientURLs) == 0 {
		return "", "it has not started yet, or tells no client URL", false
	}
	endpoint, cause = m.ClientURLs[0], "another cluster or member answers there"
	for _, a := range q.answers {
		if a.err != nil && HostOf(a.endpoint) == HostOf(endpoint) {
			cause, refused = plain(a.err), Refused(a.err)
		}
	}
	return endpoint, cause, refused
}

// silentEndpoints returns the client's endpoints that lead to no member, but for those of members that do not answer.
func silentEndpoints(r *Report) (silent []SilentEndpoint) {
	told := make(map[string]bool)
	for _, m := range r.Members {
		for _, url := range append(slices.Clone(m.ClientURLs), m.Endpoint) {
			host := HostOf(url)
			told[host] = told[host] || !m.Answers()
		}
	}
	for _, a := range r.Asked {
		switch {
		case !a.Given || told[HostOf(a.Endpoint)] || Refused(a.Err):
		case a.Err != nil:
			silent = append(silent, SilentEndpoint{Endpoint: a.Endpoint, Error: plain(a.Err)})
		case a.Cluster != r.Cluster:
			silent = append(silent, SilentEndpoint{Endpoint: a.Endpoint, Error: "another cluster answers there", Cluster: a.Cluster})
		}
	}
	return silent
}

// measureLag sets how far each member is behind the leader. The members answer at slightly
// different times, so that a small lag means nothing.
func measureLag(members []Member) {
	leader := slices.IndexFunc(members, func(m Member) bool { return m.Leader })
	if leader < 0 {
		return
	}
	for i := range members {
		if m := &members[i]; m.Answers() && m.RaftApplied < members[leader].RaftIndex {
			m.Lag = members[leader].RaftIndex - m.RaftApplied
		}
	}
}

// plain returns the text of an error without what etcd and gRPC put around it.
func plain(err error) string { return strings.TrimPrefix(printable.Error(err), "etcdserver: ") }
