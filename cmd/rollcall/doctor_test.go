// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall/internal/doctor"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

// ofVersion is what doctor finds of etcd itself, in a healthy lab.
var ofVersion = map[string][]string{"3.4": {"warning etcd-advisory", "warning etcd-end-of-life"}}

// onVersions runs a test on the etcds that people run most, and on the one that etcdtest is told to run.
func onVersions(t *testing.T, test func(t *testing.T, etcd string, healthy []string)) {
	versions := []string{"3.5", "3.7", etcdtest.Version()}
	slices.Sort(versions)
	for _, version := range slices.Compact(versions) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			test(t, etcdtest.Etcd(t, version), ofVersion[version])
		})
	}
}

// diagnose runs doctor and returns its findings, each as its severity, id and service, sorted.
func diagnose(t *testing.T, code int, env []string, args ...string) ([]string, diagnosis) {
	t.Helper()
	s := begin(t, env, append([]string{"doctor", "-o", "json"}, args...)...)
	if got := s.end(t); got != code {
		t.Errorf("exit %d, want %d; stderr %q", got, code, s.stderr.String())
	}
	var d diagnosis
	if err := json.Unmarshal([]byte(s.stdout.String()), &d); err != nil {
		t.Fatalf("%v in %q, stderr %q", err, s.stdout.String(), s.stderr.String())
	}
	found := make([]string, 0, len(d.Findings))
	for _, f := range d.Findings {
		found = append(found, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Severity, f.ID, f.Service)))
	}
	slices.Sort(found)
	return found, d
}

// wantFindings compares what was found with what was planted.
func wantFindings(t *testing.T, found []string, d diagnosis, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, found, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("found differs (-planted +found):\n%s", diff)
		for _, f := range d.Findings {
			t.Logf("%s: %s", f.ID, f.What)
		}
	}
}

// kept grants a lease that is kept alive until the test ends.
func kept(t *testing.T, client *clientv3.Client, ttl int64) clientv3.OpOption {
	t.Helper()
	lease, err := client.Grant(t.Context(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	renewed, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range renewed {
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return clientv3.WithLease(lease.ID)
}

func endpointAt(addr, metadata string) string {
	return fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":%s}`, addr, metadata)
}

func TestDoctorFindsNothing(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, want []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary})
		client := etcd.Client(t)
		lease := kept(t, client, 20)
		put1(t, client, "shop/cart/a", endpointAt(listen(t, healthpb.HealthCheckResponse_SERVING), `{"weight":3}`), lease)
		put1(t, client, "shop/cart/b", endpointAt(listen(t, healthpb.HealthCheckResponse_UNKNOWN), `{"status":"draining"}`), lease)
		put1(t, client, "shop/pay/a", endpointAt(listen(t, healthpb.HealthCheckResponse_UNKNOWN), "null"), lease)
		put1(t, client, "_grpc_config/shop/cart", `{"loadBalancingConfig":[{"round_robin":{}}]}`)
		env := []string{"ROLLCALL_ENDPOINTS=" + strings.Join(etcd.Endpoints(), ",")}
		code := 0
		if len(want) > 0 {
			code = exitWarnings
		}
		found, d := diagnose(t, code, env)
		wantFindings(t, found, d, want...)
		if d.Services != 2 || d.Instances != 3 || d.Dialled != 2 || len(d.Unknown) > 0 {
			t.Errorf("looked at %+v", d)
		}
		found, d = diagnose(t, code, env, "shop/cart", "--no-dial")
		wantFindings(t, found, d, want...)
		if d.Services != 1 || d.Instances != 2 || d.Dialled != 0 || len(d.Unknown) > 0 {
			t.Errorf("of one service looked at %+v", d)
		}
	})
}

// TestDoctorFindsFaults plants more than twenty faults at once: all are found, and nothing else.
func TestDoctorFindsFaults(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, healthy []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary, Flags: []string{etcdtest.SmallQuota}})
		client := etcd.Client(t)
		plantUsage(t, client)
		plantKeys(t, client)
		slow := etcdtest.NewLink(t, etcd.Member(0).URL())
		slow.Delay(200 * time.Millisecond)
		endpoints := slow.Addr() + "," + slow.Addr() + ",127.0.0.1:1"
		found, d := diagnose(t, exitErrors, []string{"ROLLCALL_ENDPOINTS=" + endpoints, "ROLLCALL_DIAL_TIMEOUT=10s",
			"ETCDCTL_ENDPOINTS=elsewhere:2379", "HTTPS_PROXY=http://proxy.example:3128", "GRPC_ENFORCE_ALPN_ENABLED=false"}, "--timeout", "1s")
		wantFindings(t, found, d, append(slices.Clone(healthy),
			"error config-invalid outer",
			"error etcd-silent",
			"error server-no-grpc faults",
			"error server-silent faults",
			"error server-unhealthy faults",
			"error service-empty nowhere",
			"note client-endpoint-repeated",
			"note client-grpc-variable",
			"note client-variable-ignored",
			"note config-orphan misspelt",
			"note id-duplicate faults",
			"note key-foreign",
			"note lease-shared",
			"note metadata-invalid faults",
			"warning address-disallowed nowhere",
			"warning address-duplicate faults",
			"warning client-proxy",
			"warning config-field-unknown misspelt",
			"warning etcd-fragmented",
			"warning etcd-quota",
			"warning etcd-slow",
			"warning key-undecodable faults",
			"warning key-without-service",
			"warning lease-ending faults",
			"warning lease-none faults",
			"warning lease-short faults",
			"warning rights-off",
			"warning service-draining leaving",
			"warning target-overlap outer",
			"warning weight-zero faults",
		)...)
		if len(d.Unknown) > 0 {
			t.Errorf("unknown: %q", d.Unknown)
		}
	})
}

// plantKeys writes keys with one fault each.
func plantKeys(t *testing.T, client *clientv3.Client) {
	t.Helper()
	dying, err := client.Grant(t.Context(), 21)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	lease := kept(t, client, 60)
	good := func() string { return listen(t, healthpb.HealthCheckResponse_SERVING) }
	put1(t, client, "faults/good", endpointAt(good(), "null"), lease)
	put1(t, client, "faults/undecodable\x1b[2J", "10.0.0.1:80", lease)
	put1(t, client, "faults/immortal", endpointAt(good(), "null"))
	put1(t, client, "faults/dying", endpointAt(good(), "null"), clientv3.WithLease(dying.ID))
	put1(t, client, "faults/short", endpointAt(good(), "null"), kept(t, client, 4))
	twin := good()
	put1(t, client, "faults/twin-a", endpointAt(twin, "null"), lease)
	put1(t, client, "faults/twin-b", endpointAt(twin, "null"), lease)
	put1(t, client, "faults/weightless", endpointAt(good(), `{"weight":0}`), lease)
	put1(t, client, "faults/metadata", endpointAt(good(), `{"zone":7}`), lease)
	put1(t, client, "faults/silent", endpointAt("127.0.0.1:1", "null"), kept(t, client, 12))
	for _, owner := range []clientv3.OpOption{kept(t, client, 12), lease} {
		put1(t, client, "faults/contested", endpointAt(good(), "null"), owner)
	}
	put1(t, client, "faults/mute", endpointAt(mute.Addr().String(), "null"), lease)
	put1(t, client, "faults/sick", endpointAt(listen(t, healthpb.HealthCheckResponse_NOT_SERVING), "null"), lease)
	put1(t, client, "nowhere/a", endpointAt("0.0.0.0:80", "null"), lease)
	put1(t, client, "leaving/a", endpointAt("192.0.2.1:80", `{"status":"draining"}`), lease)
	put1(t, client, "outer/a", endpointAt(twin, "null"), lease)
	put1(t, client, "outer/inner/a", endpointAt(good(), "null"), lease)
	put1(t, client, "bare", endpointAt(twin, "null"), lease)
	put1(t, client, "others/data", "1")
	put1(t, client, "_grpc_config/outer", `{"loadBalancingConfig":[{"unheard_of":{}}]}`)
	put1(t, client, "_grpc_config/misspelt", `{"methodConfig":[{"timout":"1s"}]}`)
	many := kept(t, client, 60)
	for i := range 50 {
		put1(t, client, fmt.Sprintf("many/%d/a", i), endpointAt(twin, "null"), many)
	}
	if _, err := client.UserAdd(t.Context(), "bob", "builder"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(begun.Add(14200 * time.Millisecond))) // of the lease's 21 s
}

// plantUsage fills most of a small quota, and leaves most of that unused.
func plantUsage(t *testing.T, client *clientv3.Client) {
	t.Helper()
	size := func() int64 {
		status, err := client.Status(t.Context(), client.Endpoints()[0])
		if err != nil {
			t.Fatal(err)
		}
		return status.DbSize
	}
	for i := 0; i < 85 || size() < 6.9e6; i++ {
		put1(t, client, fmt.Sprintf("usage/%d", i), strings.Repeat("x", 64<<10))
		if i >= 85 {
			time.Sleep(150 * time.Millisecond) // until it is committed, which the size tells of
		}
	}
	gone, err := client.Delete(t.Context(), "usage/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the space is free", func() bool {
		put1(t, client, "usage/last", "") // some versions count at commits only
		if _, err := client.Delete(t.Context(), "usage/last"); err != nil {
			t.Fatal(err)
		}
		status, err := client.Status(t.Context(), client.Endpoints()[0])
		return err == nil && status.DbSizeInUse < status.DbSize/2
	})
}

// What a single member cannot have.
func TestDoctorOfACluster(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{Members: 3, Etcd: etcdtest.Etcd(t, "3.7")})
	other := etcdtest.New(t, etcdtest.Options{Etcd: etcdtest.Etcd(t, "3.7")})
	killed := etcd.Member(0)
	env := func(endpoints ...string) []string {
		return []string{"ROLLCALL_ENDPOINTS=" + strings.Join(endpoints, ",")}
	}
	found, d := diagnose(t, 0, env(etcd.Endpoints()...))
	wantFindings(t, found, d)
	found, d = diagnose(t, exitErrors, env(etcd.Endpoints()[1], other.Endpoints()[0]))
	wantFindings(t, found, d, "error etcd-other-cluster")
	killed.Kill()
	etcd.WaitReady()
	eventually(t, "the others know a leader", func() bool {
		found, _ = diagnoseQuietly(t, env(etcd.Endpoints()[1]))
		return slices.Equal(found, []string{"error etcd-silent", "note client-one-endpoint"})
	})
	found, d = diagnose(t, exitErrors, append(env(etcd.Endpoints()[1:]...), "ROLLCALL_DIAL_TIMEOUT=450ms"))
	wantFindings(t, found, d, "error etcd-silent", "warning client-timeout-short")
	etcd.Member(2).Kill()
	eventually(t, "the last has no leader", func() bool {
		found, _ = diagnoseQuietly(t, env(etcd.Endpoints()...))
		return slices.Equal(found, []string{"error etcd-no-leader", "error etcd-silent", "error etcd-silent"})
	})
}

// diagnoseQuietly is diagnose for what may not have come about.
func diagnoseQuietly(t *testing.T, env []string, args ...string) ([]string, diagnosis) {
	t.Helper()
	s := begin(t, env, append([]string{"doctor", "-o", "json"}, args...)...)
	s.end(t)
	var d diagnosis
	_ = json.Unmarshal([]byte(s.stdout.String()), &d)
	var found []string
	for _, f := range d.Findings {
		found = append(found, string(f.Severity)+" "+f.ID)
	}
	slices.Sort(found)
	return found, d
}

func TestDoctorOfAlarms(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{Etcd: etcdtest.Etcd(t, "3.7")})
	client := etcd.Client(t)
	list, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{}
	for _, alarm := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		if _, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(),
			&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: list.Members[0].ID, Alarm: alarm}); err != nil {
			t.Fatal(err)
		}
		want = append(want, "error etcd-alarm-"+strings.ToLower(alarm.String()))
		found, d := diagnose(t, exitErrors, []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]})
		wantFindings(t, found, d, slices.Clone(want)...)
	}
}

func TestDoctorOfUsers(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, healthy []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary})
		auth := etcd.EnableAuth(t)
		auth.AddUser("reader", "secret", etcdtest.Read("shop/"), etcdtest.Read("_grpc_config/shop"))
		client := auth.Client(t, "root")
		put1(t, client, "shop/a", endpointAt(listen(t, healthpb.HealthCheckResponse_SERVING), "null"), kept(t, client, 20))
		env := []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]}
		code := 0
		if len(healthy) > 0 {
			code = exitWarnings
		}
		found, d := diagnose(t, code, env, "shop", "--user", "reader:secret")
		wantFindings(t, found, d, healthy...)
		root := append(slices.Clone(healthy), "note rights-root")
		found, d = diagnose(t, code, env, "--user", "root:root's password")
		wantFindings(t, found, d, root...)
		refused := append(slices.Clone(healthy), "warning rights-missing")
		found, d = diagnose(t, exitWarnings, env, "--user", "reader:secret")
		wantFindings(t, found, d, refused...)
		for _, f := range d.Findings {
			if f.ID == "rights-missing" && !strings.Contains(f.What, `user "reader" may not read: keys: `) {
				t.Errorf("finding = %+v", f)
			}
		}
		for _, services := range [][]string{{"other"}, nil} { // the command that doctor prints permits what it needs
			args := append([]string{"--user", "reader:secret"}, services...)
			_, d := diagnoseQuietly(t, env, args...)
			permit := ofID(d, "rights-missing")[""].Commands[0]
			if r := begin(t, env, append(permit[1:], "--password", "root's password")...); r.end(t) != 0 {
				t.Fatalf("%q: %s", permit, r.stderr.String())
			}
			if found, _ := diagnoseQuietly(t, env, args...); slices.Contains(found, "warning rights-missing") {
				t.Errorf("after %q found %q", permit, found)
			}
		}
		for _, stranger := range [][]string{nil, {"--user", "reader:wrong"}} { // whom some versions tell their status
			s := begin(t, env, append([]string{"doctor", "-o", "name"}, stranger...)...)
			if code := s.end(t); code != exitWarnings && code != exitNotPermitted || !strings.Contains(s.stdout.String(), "rights-missing\n") ||
				strings.Contains(s.stdout.String(), "silent") {
				t.Errorf("%q: exit %d, %q", stranger, code, s.stdout.String())
			}
		}
	})
}

func TestDoctorOfCertificates(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	ca := etcdtest.NewCA(t)
	etcd := etcdtest.New(t, etcdtest.Options{TLS: ca, Etcd: etcdtest.Etcd(t, "3.7")})
	member := etcd.Member(0).Certificate()
	client := ca.Issue("doctor", year)
	args := []string{"--cacert", ca.File(), "--cert", client.CertFile, "--key", client.KeyFile}
	env := []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]}
	for _, row := range []struct {
		server, client time.Duration
		code           int
		want           []string
	}{
		{year, year, 0, nil},
		{20 * 24 * time.Hour, year, exitWarnings, []string{"warning certificate-server"}},
		{year, 20 * 24 * time.Hour, exitWarnings, []string{"warning certificate-client"}},
		{24 * time.Hour, 25 * time.Hour, exitErrors, []string{"error certificate-client", "error certificate-server"}},
		{year, -time.Hour, exitUnreachable, []string{"error certificate-client", "error etcd-silent"}},
	} {
		ca.Reissue(member, row.server)
		ca.Reissue(client, row.client)
		found, d := diagnose(t, row.code, env, args...)
		wantFindings(t, found, d, row.want...)
	}
}

// A terminal is told of each step, and nothing of that is left at the end.
func TestDoctorProgress(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	put1(t, client, "mute/a", endpointAt(mute.Addr().String(), "null"), kept(t, client, 60))
	x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint()}, "doctor")
	x.Await("dialling servers")
	x.Await("0 of 1 endpoint asked")
	screen := x.Await("server-no-grpc")
	if code := x.End(); code != exitErrors || strings.Contains(screen, "asked") || strings.Contains(screen, "asking") {
		t.Errorf("exit %d, want %d; the screen is\n%s", code, exitErrors, screen)
	}
}

// TestDoctorOfManyKeys: with 10,000 keys under 1,000 leases it ends in seconds. Most servers are not dialled.
func TestDoctorOfManyKeys(t *testing.T) {
	const services, each = 100, 100
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	addr := listen(t, healthpb.HealthCheckResponse_SERVING)
	_, port, _ := net.SplitHostPort(addr)
	for s := range services {
		var ops []clientv3.Op
		var lease *clientv3.LeaseGrantResponse
		for i := range each {
			if i%10 == 0 {
				var err error
				if lease, err = client.Grant(t.Context(), 600); err != nil {
					t.Fatal(err)
				}
			}
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("many-%d/%d", s, i), endpointAt(fmt.Sprintf("127.0.%d.%d:%s", s, i+1, port), "null"), clientv3.WithLease(lease.ID)))
		}
		if _, err := client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	found, d := diagnose(t, exitErrors, []string{"ROLLCALL_ENDPOINTS=" + server.Endpoint(), "ROLLCALL_DIAL_TIMEOUT=10s"}, "--max-dials", "200")
	took := time.Since(begun)
	if took > 25*time.Second { // on a busy machine, with the race detector
		t.Errorf("took %v", took)
	}
	if d.Instances != services*each || d.Dialled != 200 || len(d.Unknown) != 1 || !strings.Contains(d.Unknown[0], "9800 of 10000 servers") {
		t.Errorf("looked at %d instances, dialled %d, unknown %q; found %q", d.Instances, d.Dialled, d.Unknown, found)
	}
}

// A command that doctor prints is for the etcd that it looked at, wherever it is run.
func TestDoctorCommandsNameTheCluster(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	put1(t, etcd.Client(t), "hand/a", endpointAt("127.0.0.1:1", "null"))
	endpoint := etcd.Endpoints()[0]
	r := rollcallAt(t, "127.0.0.1:1", "--endpoints", endpoint, "--user=", "--insecure-transport=true", "doctor", "hand", "-o", "json")
	var d diagnosis
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
		t.Fatal(err, r.stdout, r.stderr)
	}
	want := [][]string{
		{"rollcall", "--endpoints", endpoint, "--insecure-transport=true", "ping", "hand"},
		{"rollcall", "--endpoints", endpoint, "--insecure-transport=true", "rm", "hand", "a"},
	}
	if diff := cmp.Diff(want, ofID(d, "server-silent")["hand"].Commands); diff != "" {
		t.Errorf("commands differ (-want +got):\n%s", diff)
	}
}

// Of much that has one mend, the table shows so much that the rest stays in sight.
func TestDoctorTableIsShort(t *testing.T) {
	d := diagnosis{}
	for i := range maxFindings + 2 {
		f := doctor.Finding{ID: "server-silent", Severity: doctor.Error, What: fmt.Sprintf("finding %d.", i)}
		for j := range maxCommands + i {
			f.Commands = append(f.Commands, []string{"rollcall", "rm", "svc", fmt.Sprint(j)})
		}
		d.Findings = append(d.Findings, f)
	}
	var stdout logtest.Buffer
	if err := (&app{stdout: &stdout}).printDiagnosis(d); err != nil {
		t.Fatal(err)
	}
	table := stdout.String()
	for text, want := range map[string]int{
		"(22 findings)": 1, "    finding ": maxFindings, "      $ ": maxFindings * maxCommands,
		"      and 1 more command: -o json has all\n":   1,
		"      and 19 more commands: -o json has all\n": 1,
		"    and 2 more findings: -o json has all\n":    1,
	} {
		if n := strings.Count(table, text); n != want {
			t.Errorf("%q is there %d times, want %d", text, n, want)
		}
	}
	if t.Failed() {
		t.Log(table)
	}
}

// TestDoctorGolden holds the contract: how findings look, with hostile text in them.
func TestDoctorGolden(t *testing.T) {
	d := diagnosis{APIVersion: apiVersion, Kind: "Diagnosis", Errors: 1, Warnings: 3, Services: 2, Instances: 5, Dialled: 4,
		Unknown: []string{"alarms: permission denied\x1b[2J"}, Findings: []doctor.Finding{
			{ID: "server-silent", Severity: doctor.Error, Service: "shop/cart", Keys: []doctor.Key{{Key: "shop/cart/a"}},
				What: `1 endpoint cannot be reached: "shop/cart/a" (10.0.0.1:80: connection refused)`, Why: "Clients dial it in vain.", Fix: "Start it.",
				Commands: [][]string{{"rollcall", "ping", "shop/cart"}, {"rollcall", "rm", "shop/cart", "a"}}},
			{ID: "lease-none", Severity: doctor.Warning, Service: "evil\x1b[2J", Keys: []doctor.Key{{Key: "evil\x1b[2J/\xff", KeyBase64: "ZXZpbBtbMkov/w=="}},
				What: "1 endpoint without a lease: \u202eevil\x1b[2J", Why: "It stays.", Fix: "Remove it.",
				Commands: [][]string{{"rollcall", "rm", "evil\x1b[2J", "$(reboot)"}}},
			{ID: "target-overlap", Severity: doctor.Warning, Service: "shop", What: `the target "shop" has endpoints of "shop/cart"`, Why: "Clients call them.", Fix: "Rename one.",
				Commands: [][]string{{"rollcall", "get", "shop"}}},
			{ID: "target-overlap", Severity: doctor.Warning, Service: "shop/cart", What: `the target "shop/cart" has endpoints of "shop/cart/v2"`, Why: "Clients call them.", Fix: "Rename one."},
		}}
	for file, output := range map[string]string{"doctor.txt": "table", "doctor.json": "json"} {
		var stdout, stderr logtest.Buffer
		if err := (&app{stdout: &stdout, stderr: &stderr, settings: settings{output: output}}).printDiagnosis(d); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(stdout.String()+stderr.String(), "\x1b\u202e") {
			t.Error("control characters went through")
		}
		golden(t, file, stdout.String())
	}
}
