// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// three are the members of a healthy cluster; change makes them less so.
func three(change func(m []Member)) *Report {
	members := make([]Member, 3)
	for i, name := range []string{"etcd-1", "etcd-2", "etcd-3"} {
		members[i] = Member{ID: name, Name: name, id: uint64(i + 1), leaderID: 2, Leader: i == 1, LatencySeconds: 0.001,
			DBSize: 240e6, DBQuota: 2000e6, RaftIndex: 100, RaftApplied: 100}
	}
	change(members)
	return &Report{Members: members}
}

// silence makes members not answer.
func silence(members ...*Member) {
	for _, m := range members {
		*m = Member{ID: m.ID, Name: m.Name, id: m.id, Learner: m.Learner, Error: "connection refused"}
	}
}

func TestJudge(t *testing.T) {
	for _, row := range []struct {
		name   string
		report *Report
		level  Level
		want   string
	}{
		{"healthy", three(func([]Member) {}), OK, "3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"one member", &Report{Members: []Member{{Name: "a", id: 1, leaderID: 1, Leader: true}}}, OK, "1 of 1 member answers; leader a"},
		{"unknown quota", three(func(m []Member) { m[0].DBQuota, m[0].DBSize = 0, 1234567890 }), OK, "3 of 3 members answer; leader etcd-2; database of 1.2 GB"},
		{"hardly a database", three(func(m []Member) { m[0].DBSize, m[1].DBSize, m[2].DBSize = 1, 1, 1 }), OK,
			"3 of 3 members answer; leader etcd-2; database at less than 1 % of its quota"},
		{"one silent", three(func(m []Member) { silence(&m[0]) }), Degraded,
			"1 of 3 members does not answer (etcd-1): quorum holds, one more failure ends it; leader etcd-2; database at 12 % of its quota"},
		{"two of five silent", func() *Report {
			r := three(func([]Member) {})
			more := three(func(m []Member) { silence(&m[0], &m[1]) })
			r.Members = append(r.Members, more.Members[:2]...)
			return r
		}(), Degraded, "2 of 5 members do not answer (etcd-1, etcd-2): quorum holds, one more failure ends it; leader etcd-2; database at 12 % of its quota"},
		{"one of five silent", func() *Report {
			r := three(func([]Member) {})
			r.Members = append(r.Members, three(func(m []Member) { silence(&m[0]); m[2].Leader = false }).Members[0], r.Members[2])
			return r
		}(), Degraded, "1 of 5 members does not answer (etcd-1): quorum holds, and survives 1 more failure; leader etcd-2; database at 12 % of its quota"},
		{"a silent learner", three(func(m []Member) { m[2].Learner = true; silence(&m[2]) }), OK, "leader etcd-2; database at 12 % of its quota"},
		{"quorum lost", three(func(m []Member) {
			silence(&m[0], &m[1])
			m[2].leaderID = 0
			m[2].Problems = []string{"etcdserver: no leader"}
		}), Bad,
			"2 of 3 members do not answer (etcd-1, etcd-2): the quorum is lost; no leader: etcd takes no writes and renews no leases; database at 12 % of its quota"},
		{"unreachable from here", three(func(m []Member) { silence(&m[0], &m[1]) }), Degraded,
			"2 of 3 members do not answer (etcd-1, etcd-2), but there is a leader: some may be unreachable from here only; database at 12 % of its quota"},
		{"one isolated", three(func(m []Member) { m[0].leaderID = 0 }), Degraded,
			"etcd-1 knows no leader; 3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"two leaders", three(func(m []Member) { m[0].leaderID = 3 }), Degraded,
			"members name different leaders: an election is under way, or the network is split; 3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"full, and slow", three(func(m []Member) { m[0].LatencySeconds = 1.5; m[1].Alarms = []string{"NOSPACE"} }), Bad,
			"alarm NOSPACE of etcd-2: etcd takes no writes until it is compacted, defragmented and disarmed; etcd-1 takes 1.5s to answer; 3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"corrupt", three(func(m []Member) { m[0].Alarms = []string{"CORRUPT"} }), Bad,
			"alarm CORRUPT of etcd-1: its data differs from that of the others; 3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"nearly full", three(func(m []Member) { m[2].DBSize = 1700e6 }), Degraded,
			"database of etcd-3 at 85 % of its quota; 3 of 3 members answer; leader etcd-2"},
		{"lag", three(func(m []Member) { m[0].Lag = 1000 }), Degraded,
			"etcd-1 is 1000 raft entries behind the leader; 3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"another problem", three(func(m []Member) { m[0].Problems = []string{"on fire"} }), Degraded,
			"etcd-1 says: on fire; 3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"an endpoint that leads nowhere", func() *Report {
			r := three(func(m []Member) { m[0].Alarms = []string{"CORRUPT"} })
			r.Silent = []SilentEndpoint{{Endpoint: "a:1"}, {Endpoint: "b:1"}}
			return r
		}(), Bad, "alarm CORRUPT of etcd-1: its data differs from that of the others; no member of the cluster answers at a:1 and b:1, endpoints that were given; " +
			"3 of 3 members answer; leader etcd-2; database at 12 % of its quota"},
		{"silence", three(func(m []Member) { silence(&m[0], &m[1], &m[2]) }), Bad, "none of 3 members tells its status: connection refused"},
		{"nobody", &Report{}, Bad, "no endpoint was asked"},
	} {
		t.Run(row.name, func(t *testing.T) {
			level, text := judge(row.report)
			if level != row.level || text != row.want {
				t.Errorf("judged %s: %s\nwant   %s: %s", level, text, row.level, row.want)
			}
		})
	}
}

func TestSilentEndpoints(t *testing.T) {
	r := three(func(m []Member) {
		silence(&m[0])
		for i := range m {
			m[i].ClientURLs = []string{"http://" + m[i].Name + ":2379"}
		}
	})
	refused := errors.New("connection refused")
	r.Cluster = "c"
	r.Asked = []Asked{
		{Endpoint: "etcd-1:2379", Given: true, Err: refused}, // its member is told of
		{Endpoint: "etcd-2:2379", Given: true, Cluster: "c"},
		{Endpoint: "gone:2379", Given: true, Err: refused},
		{Endpoint: "other:2379", Given: true, Cluster: "d"},
		{Endpoint: "denied:2379", Given: true, Err: rpctypes.ErrPermissionDenied},
		{Endpoint: "advertised:2379", Err: refused},
	}
	want := []SilentEndpoint{{"gone:2379", "connection refused", ""}, {"other:2379", "another cluster answers there", "d"}}
	if diff := cmp.Diff(want, silentEndpoints(r)); diff != "" {
		t.Errorf("silent endpoints differ (-want +got):\n%s", diff)
	}
}

func TestMeasureLag(t *testing.T) {
	r := three(func(m []Member) { m[0].RaftApplied, m[1].RaftIndex, m[2].RaftApplied = 40, 90, 91 })
	measureLag(r.Members)
	if m := r.Members; m[0].Lag != 50 || m[1].Lag != 0 || m[2].Lag != 0 {
		t.Errorf("lags = %d, %d, %d, want 50, 0, 0", m[0].Lag, m[1].Lag, m[2].Lag)
	}
}

func TestSize(t *testing.T) {
	for want, bytes := range map[string]int64{"0 B": 0, "999 B": 999, "1.0 kB": 1000, "20 kB": 20480, "1.0 MB": 999_999, "2.1 GB": 2147483648, "5000 TB": 5e15} {
		if got := Size(bytes); got != want {
			t.Errorf("Size(%d) = %s, want %s", bytes, got, want)
		}
	}
}

func TestPlain(t *testing.T) {
	err := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`)
	if got := plain(err); !strings.HasPrefix(got, "dial tcp 127.0.0.1:1") || strings.Contains(got, `"`) {
		t.Errorf("plain = %s", got)
	}
	if got := plain(errors.New("etcdserver: permission denied")); got != "permission denied" {
		t.Errorf("plain = %s", got)
	}
}
