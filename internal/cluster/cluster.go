// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster tells how an etcd cluster is: what its members tell of themselves, and one
// judgement. Every question has a deadline of its own, and is answered from what the member asked has
// on disk where etcd allows that, so that a cluster without a quorum can be looked at too.
package cluster

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Level is how well a cluster does.
type Level string

// The levels, from the best to the worst.
const (
	OK       Level = "ok"
	Degraded Level = "degraded" // it works, and needs attention
	Bad      Level = "bad"      // it does not work, or not for long
)

// Report is what was found out of a cluster.
type Report struct {
	Level    Level    `json:"level"`
	Summary  string   `json:"summary"`             // one line
	Cluster  string   `json:"clusterId,omitempty"` // hexadecimal, as in etcdctl
	Revision int64    `json:"revision"`            // the newest that a member has
	Keys     *int64   `json:"keys,omitempty"`
	Leases   *int64   `json:"leases,omitempty"`
	Members  []Member `json:"members"`
	// Unknown is what etcd did not tell, and why, such as "leases: permission denied".
	Unknown []string `json:"unknown,omitempty"`
	// Silent are the client's endpoints at which no member of this cluster answers, but for those of Members
	// that do not answer. There are none where Err is set.
	Silent []SilentEndpoint `json:"silentEndpoints,omitempty"`

	// Err is why no member has told its status; nil if one has.
	Err error `json:"-"`
	// Asked is what came of asking each endpoint: those of the client, in their order, then client URLs of
	// members that had not answered there.
	Asked []Asked `json:"-"`
	// Refused is the part of Unknown that etcd refuses this user.
	Refused []string `json:"-"`
}

// SilentEndpoint is an endpoint of the client that leads to no member of the cluster.
type SilentEndpoint struct {
	Endpoint string `json:"endpoint"`
	Error    string `json:"error"`
	Cluster  string `json:"-"` // the other cluster that answers there; "": none does
}

// Asked is what came of asking an endpoint.
type Asked struct {
	Endpoint    string
	Given       bool              // it is one of the client's
	Cluster     string            // as in Report; "" if it did not tell
	Member      string            // the id, as in Member; "" if it did not tell
	Certificate *x509.Certificate // that it presented; nil without TLS
	Err         error             // why it did not tell its status; see Refused
}

// Member is what a member tells of itself. If it told nothing, Error has the reason and only what
// the others know of it is set.
type Member struct {
	ID             string   `json:"id"` // hexadecimal, as in etcdctl
	Name           string   `json:"name"`
	Endpoint       string   `json:"endpoint"` // that it was asked at
	Version        string   `json:"version,omitempty"`
	Leader         bool     `json:"leader"`
	Learner        bool     `json:"learner,omitempty"`
	LatencySeconds float64  `json:"latencySeconds,omitempty"` // of a call on an open connection
	DBSize         int64    `json:"dbSize,omitempty"`         // bytes
	DBInUse        int64    `json:"dbInUse,omitempty"`        // bytes
	DBQuota        int64    `json:"dbQuota,omitempty"`        // bytes; 0 if unknown, as before etcd 3.6
	Revision       int64    `json:"revision,omitempty"`
	RaftTerm       uint64   `json:"raftTerm,omitempty"`
	RaftIndex      uint64   `json:"raftIndex,omitempty"`
	RaftApplied    uint64   `json:"raftApplied,omitempty"`
	Lag            uint64   `json:"lag"` // raft entries of the leader that it has not applied
	Alarms         []string `json:"alarms,omitempty"`
	Problems       []string `json:"problems,omitempty"` // in its own words
	Error          string   `json:"error,omitempty"`
	ClientURLs     []string `json:"clientUrls,omitempty"` // that it advertises
	Led            bool     `json:"-"`                    // it knows a leader, perhaps itself
	Refused        bool     `json:"-"`                    // Error is that etcd refuses this user

	id       uint64
	leaderID uint64 // whom it follows; 0: nobody
}

// Answers reports whether the member told its status.
func (m Member) Answers() bool { return m.Error == "" }

// Label is the name of the member, or its id if it has none yet.
func (m Member) Label() string {
	if m.Name == "" {
		return m.ID
	}
	return m.Name
}

// Latency is the time that the member took to answer.
func (m Member) Latency() time.Duration {
	return time.Duration(m.LatencySeconds * float64(time.Second))
}

// QuotaUsed returns the part of the quota that the database takes; ok is false where it is unknown.
func (m Member) QuotaUsed() (part float64, ok bool) {
	if m.DBQuota <= 0 {
		return 0, false
	}
	return float64(m.DBSize) / float64(m.DBQuota), true
}

// Inspect asks the endpoints of the client and all members that these know of, each call within
// timeout. It takes two of these at most.
func Inspect(ctx context.Context, client *clientv3.Client, timeout time.Duration) *Report {
	q := &inquiry{client: client, timeout: timeout, asked: make(map[string]bool)}
	report := new(Report)
	var alarms []*pb.AlarmMember
	var wg sync.WaitGroup
	asking, stop := context.WithCancel(ctx)
	defer stop()
	for _, question := range []struct {
		about string
		ask   func(context.Context) error
	}{
		{"alarms", func(ctx context.Context) error {
			resp, err := client.AlarmList(ctx)
			if err == nil {
				alarms = resp.Alarms
			}
			return err
		}},
		{"keys", func(ctx context.Context) error {
			resp, err := client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly(), clientv3.WithSerializable())
			if err == nil {
				report.Keys = &resp.Count
			}
			return err
		}},
		{"leases", func(ctx context.Context) error {
			resp, err := client.Leases(ctx)
			if err == nil {
				report.Leases = new(int64(len(resp.Leases)))
			}
			return err
		}},
	} {
		wg.Go(func() {
			if err := q.within(asking, question.ask); err != nil {
				q.unknown(question.about, err)
			}
		})
	}
	q.askAll(ctx, client.Endpoints(), true)
	q.askAll(ctx, q.otherURLs(), false)
	if q.cluster == 0 {
		stop() // etcd's client would try until the deadline
	}
	wg.Wait()
	q.fill(report, alarms)
	report.Asked = q.all
	if report.Err == nil {
		slices.Sort(q.unknowns)
		report.Unknown, report.Refused = q.unknowns, q.refused
		report.Silent = silentEndpoints(report)
	}
	report.Level, report.Summary = judge(report)
	return report
}

// inquiry is what is asked of the members.
type inquiry struct {
	client  *clientv3.Client
	timeout time.Duration
	asked   map[string]bool // endpoints without their scheme
	answers []answer        // in the order of the endpoints; see keep
	cluster uint64          // 0: no member has told its status
	all     []Asked         // also those of other clusters

	mu       sync.Mutex
	unknowns []string
	refused  []string // of them
}

// answer is what came of asking an endpoint.
type answer struct {
	endpoint string
	given    bool
	status   *pb.StatusResponse // nil: see err
	cert     *x509.Certificate
	latency  time.Duration
	members  []*pb.Member
	err      error
}

func (q *inquiry) within(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	return ask(ctx)
}

func (q *inquiry) unknown(about string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	text := about + ": " + plain(err)
	q.unknowns = append(q.unknowns, text)
	if Refused(err) {
		q.refused = append(q.refused, text)
	}
}

// askAll asks endpoints at the same time, those that were not asked before.
func (q *inquiry) askAll(ctx context.Context, endpoints []string, given bool) {
	endpoints = slices.DeleteFunc(slices.Clone(endpoints), func(endpoint string) bool {
		known := q.asked[HostOf(endpoint)]
		q.asked[HostOf(endpoint)] = true
		return known
	})
	answers := make([]answer, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() {
			a := &answers[i]
			a.endpoint, a.given = endpoint, given
			a.err = rpctypes.Error(q.within(ctx, func(ctx context.Context) error { return a.ask(ctx, q.client) }))
		})
	}
	wg.Wait()
	q.keep(answers)
}

// keep adds answers, but for those of another cluster than that of the first endpoint that has
// answered: members may advertise URLs that lead elsewhere from here.
func (q *inquiry) keep(answers []answer) {
	for _, a := range answers {
		q.all = append(q.all, a.asked())
		if a.status != nil {
			q.cluster = cmp.Or(q.cluster, a.status.Header.ClusterId)
			if a.status.Header.ClusterId != q.cluster {
				continue
			}
		}
		q.answers = append(q.answers, a)
	}
}

func (a *answer) asked() Asked {
	asked := Asked{Endpoint: a.endpoint, Given: a.given, Certificate: a.cert, Err: a.err}
	if a.status != nil {
		asked.Cluster, asked.Member, asked.Err = hex(a.status.Header.ClusterId), hex(a.status.Header.MemberId), nil
	}
	return asked
}

// ask asks on a connection of its own; the first call opens it, and the second is timed.
func (a *answer) ask(ctx context.Context, client *clientv3.Client) error {
	conn, err := client.Dial(a.endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	maintenance := pb.NewMaintenanceClient(conn)
	var from peer.Peer
	_, err = maintenance.Status(ctx, &pb.StatusRequest{}, grpc.Peer(&from))
	if tls, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(tls.State.PeerCertificates) > 0 {
		a.cert = tls.State.PeerCertificates[0]
	}
	if err != nil {
		return err
	}
	begun := time.Now()
	status, err := maintenance.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return err
	}
	a.status, a.latency = status, time.Since(begun)
	list, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
	if err == nil {
		a.members = list.Members
	}
	return err
}

// otherURLs returns the client URLs of the members that no answer is from.
func (q *inquiry) otherURLs() (urls []string) {
	answered := make(map[uint64]bool)
	for _, a := range q.answers {
		if a.status != nil {
			answered[a.status.Header.MemberId] = true
		}
	}
	for _, m := range q.members() {
		if !answered[m.ID] {
			urls = append(urls, m.ClientURLs...)
		}
	}
	return urls
}

// members returns the list of the member that knows most, or nil.
func (q *inquiry) members() (members []*pb.Member) {
	index := uint64(0)
	for _, a := range q.answers {
		if a.members != nil && (members == nil || a.status.RaftAppliedIndex > index) {
			members, index = a.members, a.status.RaftAppliedIndex
		}
	}
	return members
}

// Refused reports whether etcd answered that this user has not the right, or that it knows no such user.
func Refused(err error) bool { return etcdkv.AccessDenied(err) || etcdkv.TokenRefused(err) }

// HostOf returns the host:port of an endpoint, which may be a URL.
func HostOf(endpoint string) string {
	if _, host, ok := strings.Cut(endpoint, "://"); ok {
		return strings.TrimSuffix(host, "/")
	}
	return endpoint
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }
