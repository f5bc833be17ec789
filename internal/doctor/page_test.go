// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func TestPages(t *testing.T) {
	const ahead = 100 * time.Second
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		fmt.Fprintf(w, "# HELP x y\netcd_server_leader_changes_seen_total 7\netcd_server_quota_backend_bytes 2.147483648e+09\nprocess_start_time_seconds %d\n"+
			"etcd_server_quota_backend_bytes{a=\"b\"} 1\nbroken", time.Now().Add(ahead-time.Hour).Unix())
	}))
	defer server.Close()
	nobody := httptest.NewServer(http.NotFoundHandler())
	defer nobody.Close()
	members := []cluster.Member{{ID: "a", Endpoint: server.URL}, {ID: "b", Endpoint: nobody.URL}, {ID: "c", Endpoint: "127.0.0.1:1"}, {ID: "d", Endpoint: "unix:///x"}}
	found := pages(t.Context(), members, nil, 5*time.Second)
	p := found["a"]
	if len(found) != 1 || p.LeaderChanges != 7 || p.Quota != 2147483648 || (p.Skew-ahead).Abs() > 2*time.Second || (p.Uptime-time.Hour).Abs() > 3*time.Second {
		t.Errorf("pages = %+v", found)
	}
}

// Members that speak TLS answer over HTTP/2, by the credentials that gRPC has.
func TestPagesOfEtcd(t *testing.T) {
	ca := etcdtest.NewCA(t)
	secure := etcdtest.New(t, etcdtest.Options{TLS: ca})
	client := ca.Issue("client", time.Hour)
	creds, err := rollcall.TLSFiles{CA: ca.File(), Cert: client.CertFile, Key: client.KeyFile}.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	for name, lab := range map[string]struct {
		endpoint string
		creds    credentials.TransportCredentials
	}{
		"TLS":       {secure.Member(0).URL(), creds},
		"plaintext": {etcdtest.New(t, etcdtest.Options{}).Member(0).URL(), nil},
	} {
		p, ok := pages(t.Context(), []cluster.Member{{ID: "a", Endpoint: lab.endpoint}}, lab.creds, 10*time.Second)["a"]
		if !ok || p.Quota == 0 || p.LeaderChanges == 0 || p.Uptime <= 0 || p.Uptime > time.Minute || p.Skew.Abs() > 2*time.Second {
			t.Errorf("%s: page = %+v, %v", name, p, ok)
		}
	}
}
