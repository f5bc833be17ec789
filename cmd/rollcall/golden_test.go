// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run with -update if that is meant:\n%s", file, diff)
	}
}

// grantAs grants a lease of a given id, so that a golden can hold it.
func grantAs(t *testing.T, client *clientv3.Client, id clientv3.LeaseID, ttl int64) {
	t.Helper()
	_, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: int64(id), TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes a store with everything that a reader can meet, from revision 2 on.
func fill(t *testing.T, client *clientv3.Client) {
	t.Helper()
	grantAs(t, client, 0x1234abcd, 30)
	lease := clientv3.WithLease(0x1234abcd)
	put1(t, client, "shop/cart/10.0.0.7:50051", `{"Op":0,"Addr":"10.0.0.7:50051","Metadata":{"weight":10,"zone":"eu-1","big":12345678901234567890}}`, lease)
	put1(t, client, "shop/cart/blue/1", `{"addr":"cart-1.example:50051","unknown":true}`)
	put1(t, client, "shop/cart/drained", `{"Addr":"10.0.0.9:50051","Metadata":{"status":"draining","version":"v2","host":"web-7","started":"2126-01-02T03:04:05Z"}}`, lease)
	put1(t, client, "shop/cart/evil\x1b[2J", "{\"Addr\":\"10.0.0.8:50051\",\"Metadata\":{\"note\":\"\u009b2J\u202eabc<b>\x7f\"}}")
	put1(t, client, "shop/cart/noport", `{"Addr":"10.0.0.6","Metadata":"text"}`, lease)
	put1(t, client, "shop/cart/notjson", "10.0.0.5:50051")
	put1(t, client, "shop/cart/twin", `{"Addr":"cart-1.example:50051"}`)
	put1(t, client, "shop/pay/10.0.0.2:50051", `{"Addr":"10.0.0.2:50051"}`)
	put1(t, client, "_grpc_config/shop/cart", `{}`)
	put1(t, client, "bytes/\xfe/a\xff", `{"Addr":"10.0.0.3:50051"}`)
	put1(t, client, "bytes/\xff/a\xfe", `{"Addr":"10.0.0.3:50051"}`)
	put1(t, client, "bytes/\xff/a\xff", "nothing")
	put1(t, client, "no-service", `{"Addr":"10.0.0.2:50051"}`)
}

// TestGoldens holds the contract: JSON under testdata/*.json, tables for their looks.
func TestGoldens(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	fill(t, client)
	for _, row := range []struct{ file, args string }{
		{"ls", "ls"},
		{"ls-prefix", "ls shop/p"},
		{"ls-empty", "ls nothing"},
		{"ls-wide", "ls -o wide"},
		{"ls-name", "ls -o name"},
		{"ls-yaml", "ls -o yaml"},
		{"get", "get shop/cart"},
		{"get-wide", "get shop/cart -o wide"},
		{"get-name", "get shop/cart -o name"},
		{"get-yaml", "get shop/cart -o yaml"},
		{"get-slash", "get shop/pay/"},
		{"get-outer", "get shop"},
		{"get-all", "get -A"},
		{"get-all-selected", "get --all-services -l host=web-7 -l host=10.0.0.2"},
		{"get-all-name", "get -A -o name"},
		{"resolve", "resolve shop/cart"},
		{"resolve-url", "resolve etcd://ignored/shop/pay"},
		{"ls-bytes", "ls bytes/"},
		{"get-bytes", "get bytes"},
		{"resolve-bytes", "resolve bytes"},
		{"add", "add new 10.1.0.1:80 --metadata {\"weight\":3}"},
		{"add-force", "add new 10.1.0.2:80 --id 10.1.0.1:80 --force"},
		{"drain", "drain new 10.1.0.2:80 --force"},
		{"undrain", "undrain new 10.1.0.1:80"},
		{"weight", "weight new 10.1.0.1:80 7"},
		{"config-set", "config set new testdata/input/round_robin.json"},
		{"config-dry-run", "config set shop/cart testdata/input/round_robin.json --dry-run"},
		{"config-get", "config get new"},
		{"config-rm", "config rm new"},
		{"rm", "rm new 10.1.0.1:80 --yes"},
		{"rm-bytes", "rm bytes \xfe/a\xff --yes"},
		{"rm-escaped", `rm bytes \xff/a\xfe --yes`},
		{"roles-registrar", "roles registrar shop/cart shop/pay/"},
		{"roles-resolver", "roles resolver it's --name reader --grant-to bob"},
		{"roles-bridge", "roles bridge"},
		{"roles-operator", "roles operator shop/cart"},
		{"roles-viewer", "roles viewer shop/cart --grant-to bob"},
		{"roles-console", "roles console shop/cart"},
		{"roles-prefix", "roles operator --prefix shop/ team-a/eu/ --grant-to alice"},
	} {
		t.Run(row.file, func(t *testing.T) {
			before := revisionOf(t, client)
			table := must(t, server.Endpoint(), strings.Split(row.args, " ")...)
			if revisionOf(t, client) != before {
				restore(t, client, before)
			}
			if strings.Contains(row.args, "-o") {
				golden(t, row.file+".txt", numbered(table.stdout))
				return
			}
			asJSON := must(t, server.Endpoint(), append(strings.Split(row.args, " "), "-o", "json")...)
			if strings.ContainsAny(table.stdout+asJSON.stdout, "\x1b\u009b\u202e\x7f") {
				t.Error("control characters went through")
			}
			golden(t, row.file+".txt", numbered(table.stdout))
			golden(t, row.file+".json", numbered(asJSON.stdout))
		})
	}
}

// restore undoes what was written after a revision to some services and a config.
func restore(t *testing.T, client *clientv3.Client, revision int64) {
	t.Helper()
	for _, prefix := range []string{"new/", "bytes/", "_grpc_config/new"} {
		old, err := client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Delete(t.Context(), prefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		for _, kv := range old.Kvs {
			put1(t, client, string(kv.Key), string(kv.Value))
		}
	}
}

// numbered hides what differs from run to run: leases that etcd chose, what is left of them, a time of day,
// and revisions of two digits, which come after what fill wrote.
func numbered(text string) string {
	text = regexp.MustCompile(`(ttlLeft"?: ?)\d+`).ReplaceAllString(text, "${1}0")
	text = regexp.MustCompile(`\b(27|28|29|30)s\b`).ReplaceAllString(text, "NNs")
	text = regexp.MustCompile(`\b[0-9a-f]{13,16}\b`).ReplaceAllString(text, "LEASE")
	text = regexp.MustCompile(`(evision": ?)\d\d\b`).ReplaceAllString(text, "${1}0")
	text = regexp.MustCompile(`  \d\d\n`).ReplaceAllString(text, "  NN\n")
	return regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d`).ReplaceAllString(text, "HH:MM:SS")
}

func TestWatchGolden(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	fill(t, client)
	env := []string{"ETCDCTL_ENDPOINTS=" + server.Endpoint()}
	asTable := begin(t, env, "watch", "shop/cart")
	asJSON := begin(t, env, "watch", "shop/cart", "-o", "json")
	both := func(part string) {
		t.Helper()
		eventually(t, "both show "+part, func() bool {
			return strings.Contains(asTable.stdout.String()+asTable.stderr.String(), part) && strings.Contains(asJSON.stdout.String()+asJSON.stderr.String(), part)
		})
	}
	both("noport")
	put1(t, client, "shop/cart/a", `{"Addr":"10.9.0.1:1"}`)
	both("10.9.0.1:1")
	put1(t, client, "shop/cart/a", `{"Addr":"10.9.0.2:1","Metadata":[1, 2]}`)
	both("10.9.0.2:1")
	put1(t, client, "shop/cart/a", `{"Addr":"unix:/x"}`)
	both("unix:/x")
	if _, err := client.Delete(context.Background(), "shop/cart/twin"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "twin has gone", func() bool {
		return strings.Contains(asJSON.stdout.String(), `"DELETE","revision":18`) && strings.Contains(asTable.stdout.String(), "- twin")
	})
	put1(t, client, "shop/cart/a", `garbage`)
	both(`invalid "shop/cart/a"`)
	for _, id := range []string{"drained", "10.0.0.7:50051"} { // under a lease that lives
		if _, err := client.Delete(context.Background(), "shop/cart/"+id); err != nil {
			t.Fatal(err)
		}
		eventually(t, id+" has gone", func() bool {
			return strings.Contains(asTable.stdout.String(), "- "+id) && strings.Count(asJSON.stdout.String(), `"DELETE"`) == strings.Count(asTable.stdout.String(), "  - ")
		})
	}
	if _, err := client.Revoke(context.Background(), 0x1234abcd); err != nil {
		t.Fatal(err)
	}
	both("expired")
	for _, s := range []*session{asTable, asJSON} {
		s.cancel(signalError{syscall.SIGTERM})
		if code := s.end(t); code != 143 {
			t.Errorf("exit %d, want 143", code)
		}
	}
	golden(t, "watch.txt", regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d`).ReplaceAllString(asTable.stdout.String(), "HH:MM:SS"))
	golden(t, "watch.json", regexp.MustCompile(`"time":"[^"]+Z"`).ReplaceAllString(asJSON.stdout.String(), `"time":"TIME"`))
	golden(t, "watch.stderr", asTable.stderr.String())
}
