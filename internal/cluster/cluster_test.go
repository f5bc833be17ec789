// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

const patience = 3 * time.Second

// becomes inspects until the report is as wanted: members need a moment to notice.
func becomes(t *testing.T, client *clientv3.Client, level Level, parts ...string) *Report {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r := Inspect(context.Background(), client, patience)
		missing := ""
		for _, part := range parts {
			if !strings.Contains(r.Summary, part) {
				missing = part
			}
		}
		if r.Level == level && missing == "" {
			return r
		}
		if time.Now().After(until) {
			t.Fatalf("judged %s: %s; want %s and %q", r.Level, r.Summary, level, missing)
		}
	}
}

// A client that is given one endpoint is told of all members, and of those that are gone.
func TestInspectCluster(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{Members: 3, Flags: []string{etcdtest.SmallQuota}})
	leader := etcd.Leader()
	client := etcd.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{leader.URL()} })
	if _, err := client.Put(t.Context(), "a", "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Grant(t.Context(), 60); err != nil {
		t.Fatal(err)
	}
	r := becomes(t, client, OK, "3 of 3 members answer", "leader "+leader.Name(), "of its quota")
	if *r.Keys != 1 || *r.Leases != 1 || len(r.Unknown) > 0 || r.Err != nil || r.Cluster == "" || r.Revision != 2 {
		t.Errorf("report = %+v", r)
	}
	for _, m := range r.Members {
		if m.Name == "" || m.Version == "" || m.DBSize == 0 || m.DBInUse == 0 || m.DBQuota != 8388608 || m.RaftIndex == 0 || m.RaftTerm == 0 ||
			m.LatencySeconds <= 0 || m.Revision != 2 || m.Leader != (m.Name == leader.Name()) {
			t.Errorf("member = %+v", m)
		}
	}
	var others []*etcdtest.Member
	for _, m := range etcd.Members() {
		if m != leader {
			others = append(others, m)
		}
	}
	others[0].Kill()
	r = becomes(t, client, Degraded, "1 of 3 members does not answer ("+others[0].Name()+"): quorum holds, one more failure ends it")
	for _, m := range r.Members {
		if m.Name == others[0].Name() && (m.Answers() || !strings.Contains(m.Error, "refused")) {
			t.Errorf("the killed member = %+v", m)
		}
	}
	others[1].Pause() // accepts connections, and answers nothing
	defer others[1].Resume()
	r = becomes(t, client, Bad, "the quorum is lost", "no leader")
	if len(r.Unknown) == 0 || r.Err != nil || *r.Keys != 1 {
		t.Errorf("without a quorum, unknown = %q, err %v; want alarms unknown, and keys from the member itself", r.Unknown, r.Err)
	}
	leader.Kill()
	begun := time.Now()
	r = Inspect(t.Context(), client, patience)
	if r.Err == nil || r.Level != Bad || status.Code(r.Err) != codes.Unavailable || time.Since(begun) > 2*patience+time.Second {
		t.Errorf("without any member: %+v, err %v, after %v", r, r.Err, time.Since(begun))
	}
}

func TestInspectFullCluster(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{Flags: []string{etcdtest.SmallQuota}})
	etcd.Fill(t)
	r := becomes(t, etcd.Client(t), Bad, "alarm NOSPACE of ")
	if m := r.Members[0]; len(m.Alarms) != 1 || m.Alarms[0] != "NOSPACE" || len(m.Problems) > 0 {
		t.Errorf("alarms = %q, problems = %q", m.Alarms, m.Problems)
	}
}

// What a user may not ask is missing, with the reason.
func TestInspectWithoutRights(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	auth := etcd.EnableAuth(t)
	auth.AddUser("reader", "secret", etcdtest.Read("shop/"))
	lazy, err := rollcall.NewClient(func() clientv3.Config {
		cfg := rollcall.ClientConfig(etcd.Endpoints()...)
		auth.As("reader")(&cfg)
		return cfg
	}())
	if err != nil {
		t.Fatal(err)
	}
	defer lazy.Close()
	for name, client := range map[string]*clientv3.Client{"reader": auth.Client(t, "reader"), "a client that logs in when it must": lazy} {
		r := becomes(t, client, OK, "1 of 1 member answers")
		if len(r.Unknown) == 0 || r.Keys != nil || !strings.Contains(strings.Join(r.Unknown, "\n"), "keys: permission denied") {
			t.Errorf("%s: unknown = %q", name, r.Unknown)
		}
	}
	r := becomes(t, auth.Client(t, "root"), OK, "1 of 1 member answers")
	if len(r.Unknown) > 0 || r.Keys == nil || r.Leases == nil {
		t.Errorf("root is not told %q", r.Unknown)
	}
	r = Inspect(t.Context(), etcd.Client(t), patience)
	if r.Err == nil || r.Level == OK || !strings.Contains(r.Summary, "user name is empty") {
		t.Errorf("nobody is told %s %q, err %v", r.Level, r.Summary, r.Err)
	}
}

// A member's advertised URL may lead to another cluster from here.
func TestInspectLeavesOtherClustersOut(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	other := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	r := Inspect(t.Context(), etcd.Client(t, func(cfg *clientv3.Config) {
		cfg.Endpoints = []string{etcd.Endpoints()[0]}
	}), patience)
	q := &inquiry{client: client, timeout: patience, asked: make(map[string]bool)}
	q.askAll(t.Context(), etcd.Endpoints(), true)
	for range 100 { // its list must not be taken for knowing more
		if _, err := other.Client(t).Put(t.Context(), "a", "b"); err != nil {
			t.Fatal(err)
		}
	}
	q.askAll(t.Context(), other.Endpoints(), false)
	again := new(Report)
	q.fill(again, nil)
	if len(q.all) != 2 || !q.all[0].Given || q.all[0].Cluster != r.Cluster || q.all[1].Given || q.all[1].Cluster == r.Cluster || q.all[1].Err != nil {
		t.Errorf("asked = %+v", q.all)
	}
	if len(again.Members) != 1 || again.Members[0].ID != r.Members[0].ID || again.Cluster != r.Cluster {
		t.Errorf("members = %+v, want those of cluster %s", again.Members, r.Cluster)
	}
}

// Of two clusters, the one of the first endpoint that has answered is reported, however quick.
func TestKeepsTheFirstCluster(t *testing.T) {
	of := func(cluster uint64) answer {
		return answer{status: &pb.StatusResponse{Header: &pb.ResponseHeader{ClusterId: cluster, MemberId: cluster}}}
	}
	q := new(inquiry)
	q.keep([]answer{{err: errors.New("refused")}, of(7), of(8)})
	q.keep([]answer{of(8), of(7)})
	if len(q.answers) != 3 || q.cluster != 7 || len(q.best(new(Report))) != 1 {
		t.Errorf("kept %+v of cluster %d, want three, of cluster 7", q.answers, q.cluster)
	}
}

// A port where nobody is a member is no member of the report.
func TestInspectReachesNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	client, err := rollcall.NewClient(rollcall.ClientConfig(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	begun := time.Now()
	r := Inspect(t.Context(), client, 20*time.Second)
	if r.Err == nil || !strings.Contains(r.Summary, "refused") || time.Since(begun) > 10*time.Second {
		t.Errorf("judged %s %q, err %v, after %v", r.Level, r.Summary, r.Err, time.Since(begun))
	}
}
