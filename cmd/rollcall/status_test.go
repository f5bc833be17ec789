// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

func TestStatusGolden(t *testing.T) {
	s := clusterStatus{APIVersion: apiVersion, Kind: "ClusterStatus",
		Services: &serviceTotals{Services: 12, Instances: 214, Serving: 210, Draining: 3, Invalid: 1, Leases: 70},
		Report: &cluster.Report{Level: cluster.Degraded, Summary: "1 of 3 members does not answer (etcd-3): quorum holds, one more failure ends it; leader etcd-2",
			Cluster: "cdf818194e3a8c32", Revision: 9001, Keys: new(int64(300)), Unknown: []string{"leases: permission denied"}, Members: []cluster.Member{
				{ID: "8e9e05c52164694d", Name: "etcd-1", Endpoint: "http://10.0.0.1:2379", Version: "3.7.3", LatencySeconds: 0.00041, DBSize: 240e6, DBInUse: 200e6,
					DBQuota: 2147483648, Revision: 9000, RaftTerm: 7, RaftIndex: 12000, RaftApplied: 11999, Lag: 2, Alarms: []string{"NOSPACE"}},
				{ID: "91bc3c398fb3c146", Name: "etcd-2\x1b[2J", Endpoint: "http://10.0.0.2:2379", Version: "3.5.1", Leader: true, LatencySeconds: 0.0351, DBSize: 1234,
					Revision: 9001, RaftTerm: 7, RaftIndex: 12001, RaftApplied: 12001},
				{ID: "fd422379fda50e48", Endpoint: "http://10.0.0.3:2379", Learner: true, Error: "dial tcp 10.0.0.3:2379: connect: connection refused"},
			}}}
	for file, output := range map[string]string{"status.txt": "table", "status-wide.txt": "wide", "status.json": "json"} {
		var stdout, stderr logtest.Buffer
		if err := (&app{stdout: &stdout, stderr: &stderr, settings: settings{output: output}}).printStatus(s); err != nil {
			t.Fatal(err)
		}
		golden(t, file, stdout.String())
		if output != "json" && stderr.String() != "rollcall: not known: leases: permission denied\n" {
			t.Errorf("stderr = %q", stderr.String())
		}
	}
}

func TestStatus(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	fill(t, client)
	r := must(t, server.Endpoint(), "status")
	wantIn(t, "stdout", r.stdout, "ok: 1 of 1 member answers; leader ", "\n5         11         7        1         3        1       13        1\n")
	r = must(t, server.Endpoint(), "status", "-o", "json")
	var got clusterStatus
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != "ClusterStatus" || got.Level != cluster.OK || len(got.Members) != 1 || *got.Keys != 13 || *got.Leases != 1 || got.Services.Leases != 1 {
		t.Errorf("got %s, stderr %q", r.stdout, r.stderr)
	}
	if etcdtest.Version() < "3.6" {
		if want := []string{"quota: etcd " + got.Members[0].Version + " does not tell it, 3.6 and newer do"}; !slices.Equal(got.Unknown, want) {
			t.Errorf("not known: %q, want %q", got.Unknown, want)
		}
	} else if got.Members[0].DBQuota == 0 || !strings.Contains(got.Summary, "of its quota") || r.stderr != "" {
		t.Errorf("no quota in %s, stderr %q", r.stdout, r.stderr)
	}
}

// TestStatusOfADeadEndpoint: the cluster answers, and not at all of --endpoints.
func TestStatusOfADeadEndpoint(t *testing.T) {
	server, other := freshEtcd(t), sharedEtcd(t)
	for dead, problem := range map[string]string{"127.0.0.1:1": "connection refused", other: "another cluster answers there"} {
		endpoints := server.Endpoint() + "," + dead
		says := "no member of the cluster answers at " + dead + ", an endpoint that was given"
		r := rollcallAt(t, endpoints, "status")
		if r.code != exitOther {
			t.Errorf("exit %d, want %d; stderr %q", r.code, exitOther, r.stderr)
		}
		wantIn(t, "stdout", r.stdout, "degraded: "+says+"; 1 of 1 member answers; leader ", problem+"; see ROLLCALL_ENDPOINTS\n")
		r = rollcallAt(t, endpoints, "status", "-o", "json")
		var got clusterStatus
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
			t.Fatal(err)
		}
		if got.Level != cluster.Degraded || len(got.Members) != 1 || len(got.Silent) != 1 || got.Silent[0].Endpoint != dead {
			t.Errorf("got %s", r.stdout)
		}
	}
}

func TestStatusOfAFullEtcd(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	list, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(),
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: list.Members[0].ID, Alarm: pb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
	r := rollcallAt(t, server.Endpoint(), "status")
	if r.code != exitOther {
		t.Errorf("exit %d, want %d; stderr %q", r.code, exitOther, r.stderr)
	}
	wantIn(t, "stdout", r.stdout, "bad: alarm NOSPACE of ", "  NOSPACE\n")
}

func TestStatusOfNobody(t *testing.T) {
	begun := time.Now()
	r := rollcallAt(t, "127.0.0.1:1", "status")
	if r.code != exitUnreachable || r.stderr != "" || time.Since(begun) > 8*time.Second {
		t.Errorf("exit %d, want %d; stdout %q, after %v", r.code, exitUnreachable, r.stdout, time.Since(begun))
	}
	wantIn(t, "stdout", r.stdout, "bad: cannot reach etcd at 127.0.0.1:1: ", "connection refused; is it running? see ROLLCALL_ENDPOINTS\n")
	if strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("stdout = %q, want one line", r.stdout)
	}
	r = rollcallAt(t, "127.0.0.1:1", "status", "-o", "json")
	if r.code != exitUnreachable {
		t.Errorf("as JSON: exit %d, want %d", r.code, exitUnreachable)
	}
	wantIn(t, "JSON", r.stdout, `"level": "bad"`, `"error":`)
}

// TestNoMemberTells: status and doctor end with the same codes where no member tells how it does.
func TestNoMemberTells(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	auth := etcdtest.New(t, etcdtest.Options{Etcd: etcdtest.Etcd(t, "3.7")})
	auth.EnableAuth(t)
	for _, row := range []struct {
		name, endpoint, user string
		code                 int
		wayOut               string
	}{
		{"nothing listens", "127.0.0.1:1", "", exitUnreachable, "is it running? see ROLLCALL_ENDPOINTS"},
		{"no answer", mute.Addr().String(), "", exitUnreachable, "see ROLLCALL_DIAL_TIMEOUT"},
		{"not an etcd", listen(t, healthpb.HealthCheckResponse_SERVING), "", exitUnreachable, "see ROLLCALL_ENDPOINTS"},
		{"wrong password", auth.Endpoints()[0], "root:wrong", exitNotPermitted, "see --user, --password and the user's roles"},
	} {
		for _, command := range []string{"status", "doctor"} {
			s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + row.endpoint, "ROLLCALL_DIAL_TIMEOUT=600ms"}, command, "--user", row.user)
			if code := s.end(t); code != row.code {
				t.Errorf("%s: %s: exit %d, want %d; %q", row.name, command, code, row.code, s.stdout.String())
			}
			told := s.stderr.String()
			if command == "status" {
				told = s.stdout.String()
			}
			wantIn(t, row.name, told, row.wayOut)
		}
	}
}

func TestLatencyText(t *testing.T) {
	for want, d := range map[string]time.Duration{"412µs": 412345, "1.2ms": 1234567, "35ms": 35123456, "1.31s": 1312345678} {
		if got := latencyText(d); got != want {
			t.Errorf("latencyText(%d) = %s, want %s", d, got, want)
		}
	}
}
