// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/rollcall-grpc/rollcall/resolver"
)

const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

func TestConfig(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	env := []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=10s"}
	const key = "_grpc_config/t-config"
	set := func(text string, args ...string) result {
		t.Helper()
		s := beginWith(t, text, env, append([]string{"config", "set", "t-config"}, args...)...)
		return result{s.end(t), s.stdout.String(), s.stderr.String()}
	}

	r := set("\n" + roundRobin + "\n")
	if got := valueOf(t, client, key); r.code != 0 || got != roundRobin {
		t.Fatalf("exit %d, stderr %q, value %s", r.code, r.stderr, got)
	}
	wantIn(t, "diff", r.stdout, "+  \"loadBalancingConfig\": [", "+      \"round_robin\": {}")
	wantIn(t, "stderr", r.stderr, "was written at", `service "t-config" has no endpoints`)
	put1(t, client, "t-config/a", `{"Addr":"10.0.0.1:80"}`)
	before := revisionOf(t, client)
	r = set(roundRobin, "-")
	wantIn(t, "stderr", r.stderr, "is the same already")
	if strings.Contains(r.stderr, "no endpoints") || r.stdout != "" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	r = set(`{"loadBalancingConfig":[{"rollcall_weighted":{}}]}`, "--dry-run")
	wantIn(t, "diff", r.stdout, "-      \"round_robin\": {}", "+      \"rollcall_weighted\": {}")
	wantIn(t, "stderr", r.stderr, "not written")
	var doc serviceConfigDoc
	r = set(`{"loadBalancingConfig":[{"rollcall_weighted":{}}]}`, "--dry-run", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || doc.Changed == nil || *doc.Changed || doc.Diff == "" {
		t.Errorf("%v of %s", err, r.stdout)
	}
	for _, text := range []string{"", "  ", "null", "[]", `"x"`, "{", `{"a":1}x`, `{"loadBalancingConfig":[{"no_such":{}}]}`,
		`{"loadBalancingConfig":[{"round_robin":{},"pick_first":{}}]}`, `{"methodConfig":[{"name":[{}],"timeout":"5"}]}`,
		`{"loadBalancingConfig":[{"rollcall_zone":{"childPolicy":[{"no_such":{}}]}}]}`,
		`{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":1}}]}`, `{"x":"` + strings.Repeat("x", maxConfig) + `"}`} {
		r := set(text)
		if r.code != exitUsage || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 || len(r.stderr) > 400 {
			t.Errorf("%.80s: exit %d, stdout %q, stderr %.500q", text, r.code, r.stdout, r.stderr)
		}
	}
	if after := revisionOf(t, client); after != before {
		t.Error("what was invalid, unchanged or a dry run was written")
	}

	wantIn(t, "get", must(t, endpoint, "get", "t-config").stdout, "SERVICE CONFIG", "valid")
	if got := must(t, endpoint, "config", "get", "t-config"); got.stderr != "" || !json.Valid([]byte(got.stdout)) {
		t.Errorf("stdout %q, stderr %q", got.stdout, got.stderr)
	}
	for _, broken := range []string{`{"loadBalancingConfig":[{"no_such":{}}]}`, "no \x1b[2J JSON"} {
		put1(t, client, key, broken)
		wantIn(t, "get", must(t, endpoint, "get", "t-config").stdout, "SERVICE CONFIG", "invalid: ")
		r = must(t, endpoint, "config", "get", "t-config")
		wantIn(t, "stderr", r.stderr, "the service config is invalid")
		if strings.Contains(r.stdout, "\x1b") {
			t.Error("control characters went through")
		}
		r = must(t, endpoint, "get", "t-config", "-o", "json")
		wantIn(t, "get", r.stdout, `"cause": `, `"modRevision": `)
		must(t, endpoint, "resolve", "t-config") // as a channel: without
	}
	must(t, endpoint, "config", "rm", "t-config")
	if valueOf(t, client, key) != "" || rollcallAt(t, endpoint, "config", "rm", "t-config").code != exitNotFound {
		t.Error("the config is still there")
	}
	wantIn(t, "help", must(t, endpoint, "config").stdout, "rollcall config set my-service policy.json")
}

// TestConfigSetWhileChanged: of concurrent changes, those that would overwrite an unseen one fail
// and write nothing.
func TestConfigSetWhileChanged(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	env := []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=10s"}
	if _, err := client.Delete(t.Context(), "_grpc_config/t-race"); err != nil {
		t.Fatal(err)
	}
	var written, denied int
	for round := 0; denied == 0 && round < 50; round++ {
		var sets []*session
		for i := range 4 {
			text := fmt.Sprintf(`{"loadBalancingConfig":[{"round_robin":{}}],"x":"%d/%d"}`, round, i)
			sets = append(sets, beginWith(t, text, env, "config", "set", "t-race"))
		}
		for _, s := range sets {
			switch code := s.end(t); code {
			case 0:
				written++
			case exitOther:
				denied++
				wantIn(t, "stderr", s.stderr.String(), `"t-race"`, "changed meanwhile; nothing was written; see rollcall config get")
			default:
				t.Fatalf("exit %d, stderr %q", code, s.stderr.String())
			}
		}
	}
	resp, err := client.Get(t.Context(), "_grpc_config/t-race")
	if err != nil {
		t.Fatal(err)
	}
	if denied == 0 || len(resp.Kvs) != 1 || resp.Kvs[0].Version != int64(written) {
		t.Errorf("%d written, %d denied, in etcd %v", written, denied, resp.Kvs)
	}
}

// TestConfigOfARunningChannel: the command turns a channel from one server to all.
func TestConfigOfARunningChannel(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	for i := range 3 {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		healthpb.RegisterHealthServer(server, health.NewServer())
		go server.Serve(lis)
		t.Cleanup(server.Stop)
		put1(t, client, fmt.Sprintf("t-channel/%d", i), fmt.Sprintf(`{"Addr":%q}`, lis.Addr()))
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///t-channel", grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	servers := func() int {
		seen := make(map[string]bool)
		for range 3 {
			var p peer.Peer
			if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Peer(&p), grpc.WaitForReady(true)); err != nil {
				t.Fatal(err)
			}
			seen[p.Addr.String()] = true
		}
		return len(seen)
	}
	if n := servers(); n != 1 {
		t.Fatalf("%d servers were called, want one without a service config", n)
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(roundRobin), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, endpoint, "config", "set", "t-channel", file)
	defer func() { must(t, endpoint, "config", "rm", "t-channel") }()
	began := time.Now()
	eventually(t, "all servers are called", func() bool { return servers() == 3 })
	t.Logf("measured: in force %v after the command", time.Since(began).Round(time.Millisecond))
}
