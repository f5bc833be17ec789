// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/xds"
)

// TestXDSGoldens holds the contract of what xds bootstrap and xds explain print.
func TestXDSGoldens(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	config, err := os.ReadFile("testdata/input/service_config.json")
	if err != nil {
		t.Fatal(err)
	}
	put1(t, client, "_grpc_config/shop", string(config))
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80","Metadata":{"region":"eu","zone":"eu-1","weight":9,"version":"v2"}}`)
	put1(t, client, "shop/b", `{"Addr":"10.0.0.2:80","Metadata":{"region":"eu","zone":"eu-1"}}`)
	put1(t, client, "shop/c", `{"Addr":"[::1]:80","Metadata":{"region":"eu","zone":"eu-2","subzone":"r7"}}`)
	put1(t, client, "shop/drained", `{"Addr":"10.0.0.4:80","Metadata":{"region":"eu","zone":"eu-1","status":"draining"}}`)
	put1(t, client, "shop/evil\x1b[2J", `{"Addr":"10.0.0.5"}`)
	put1(t, client, "shop/far", `{"Addr":"[::ffff:10.0.0.6]:80","Metadata":{"region":"us"}}`)
	put1(t, client, "shop/garbage", "garbage")
	put1(t, client, "shop/twin", `{"Addr":"10.0.0.2:80","Metadata":{"status":"draining"}}`)
	put1(t, client, "broken/a", `{"Addr":"10.0.0.5"}`)
	for _, row := range []struct{ file, args string }{
		{"xds-explain", "xds explain shop --node-region eu --node-zone eu-1 --node-id n"},
		{"xds-explain-selector", "xds explain xds:///shop%3Fversion=v2"},
		{"xds-explain-refusal", "xds explain broken"},
		{"xds-explain-empty", "xds explain shop?version=v3"},
	} {
		t.Run(row.file, func(t *testing.T) {
			args := strings.Fields(row.args)
			golden(t, row.file+".txt", must(t, server.Endpoint(), args...).stdout)
			golden(t, row.file+".json", must(t, server.Endpoint(), append(args, "-o", "json")...).stdout)
		})
	}
}

// TestBootstrapGoldens: the server need not answer.
func TestBootstrapGoldens(t *testing.T) {
	for _, row := range []struct{ file, args string }{
		{"xds-bootstrap", "xds bootstrap --server 127.0.0.1:1 --node-id n"},
		{"xds-bootstrap-all", "xds bootstrap --server 127.0.0.1:1 --server unix:/nowhere --authority a.test --authority b --node-id n --zone eu-1 --subzone r7 " +
			"--tls-ca /etc/ca.pem --tls-cert /etc/cert.pem --tls-key /etc/key.pem"},
	} {
		r := must(t, "127.0.0.1:1", strings.Fields(row.args)...)
		golden(t, row.file+".json", r.stdout)
		wantIn(t, "stderr", r.stderr, "rollcall: warning: ")
	}
}

func TestBootstrapDefaults(t *testing.T) {
	id := func(env ...string) string {
		s := begin(t, env, "xds", "bootstrap", "--server", "127.0.0.1:1")
		if code := s.end(t); code != 0 {
			t.Fatalf("exit %d: %s", code, s.stderr.String())
		}
		wantIn(t, "stderr", s.stderr.String(), "warning: server 127.0.0.1:1: ", "connection refused", "is rollcall serve running there?")
		var file bootstrap
		if err := json.Unmarshal([]byte(s.stdout.String()), &file); err != nil {
			t.Fatal(err)
		}
		if len(env) > 0 && file.Node.Locality != (bootstrapLocality{"eu", "eu-1", "r7"}) {
			t.Errorf("the environment was not read: %+v", file.Node.Locality)
		}
		return file.Node.ID
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	one, two := id("ROLLCALL_REGION=eu", "ROLLCALL_ZONE=eu-1", "ROLLCALL_SUBZONE=r7"), id()
	form := regexp.MustCompile("^" + regexp.QuoteMeta(host) + "-[0-9a-f]{8}$")
	if !form.MatchString(one) || !form.MatchString(two) || one == two {
		t.Errorf("ids %q and %q, want two of the form %s", one, two, form)
	}
	if got := (&app{getenv: func(string) (string, bool) { return "eu", true }}).locality(rollcall.Locality{Zone: "us-1"}); got != (rollcall.Locality{Zone: "us-1"}) {
		t.Errorf("a zone that was given is in %v", got)
	}
}

func TestClientsGoldens(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	const cluster, assignment = "envoy.config.cluster.v3.Cluster", "envoy.config.endpoint.v3.ClusterLoadAssignment"
	clients := []xds.Client{
		{ID: "new", Peer: "10.0.0.1:1", Since: now},
		{ID: "good", UserAgent: "gRPC Go 1.83.2", Locality: rollcall.Locality{Region: "eu", Zone: "eu-1"}, Peer: "10.0.0.1:2", Since: now.Add(-90 * time.Second),
			Resources: []xds.Subscribed{{Type: cluster, Names: []string{"a"}, Sent: "1", Accepted: "1"}, {Type: assignment, Names: []string{"a"}, Sent: "2", Accepted: "2"}}},
		{ID: "slow", Cluster: "c", Peer: "10.0.0.1:3", Since: now.Add(-90 * time.Minute), Resources: []xds.Subscribed{
			{Type: cluster, Names: []string{"a", "b", "c", "d", "e"}, Sent: "2", Accepted: "1", Rejected: &xds.Rejection{Version: "0", Time: now.Add(-50 * time.Hour), Message: "old"}}}},
		{ID: "evil\x1b[2J", Peer: "@", Since: now.Add(-30 * time.Hour), Resources: []xds.Subscribed{
			{Type: cluster}, {Type: assignment, Names: []string{"a"}, Sent: "2", Rejected: &xds.Rejection{Version: "2", Time: now.Add(-2 * time.Second), Message: "I do\nnot like it\x1b"}}}},
	}
	list := newXDSClientList(clients)
	golden(t, "xds-clients.txt", clientTable(list.Clients, now))
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "null") {
		t.Error("a list is null")
	}
	golden(t, "xds-clients.json", string(text)+"\n")
}
