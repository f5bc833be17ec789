// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// pagesOf asks members as Gather does.
func pagesOf(t *testing.T, creds credentials.TransportCredentials, members ...cluster.Member) *gathering {
	g := &gathering{Facts: &Facts{Cluster: &cluster.Report{Members: members}}, opts: Options{Credentials: creds, Timeout: 10 * time.Second}}
	g.pages(t.Context())
	return g
}

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
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer refusing.Close()
	g := pagesOf(t, nil, cluster.Member{ID: "a", Endpoint: server.URL}, cluster.Member{ID: "b", Endpoint: refusing.URL},
		cluster.Member{ID: "c", Endpoint: "127.0.0.1:1"}, cluster.Member{ID: "d", Endpoint: "unix:///x"})
	found, p := g.HTTP, g.HTTP["a"]
	if p.LeaderChanges != 7 || p.Quota != 2147483648 || (p.Skew-ahead).Abs() > 2*time.Second || (p.Uptime-time.Hour).Abs() > 3*time.Second {
		t.Errorf("pages = %+v", found)
	}
	if refused := (Page{Skew: found["b"].Skew}); found["b"] != refused || (refused.Skew-ahead).Abs() > 2*time.Second {
		t.Errorf("page of a member that refuses = %+v, want its clock alone", found["b"])
	}
	unknown := strings.Join(g.Unknown, "\n")
	for _, want := range []string{`metrics of member "b": it answers 401 Unauthorized`, `metrics of member "c": `, `metrics of member "d": `} {
		if !strings.Contains(unknown, want) || len(g.Unknown) != 3 {
			t.Errorf("unknown = %q, want %s", g.Unknown, want)
		}
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
		g := pagesOf(t, lab.creds, cluster.Member{ID: "a", Endpoint: lab.endpoint})
		p := g.HTTP["a"]
		if len(g.Unknown) > 0 || p.Quota == 0 || p.LeaderChanges == 0 || p.Uptime <= 0 || p.Uptime > time.Minute || p.Skew.Abs() > 2*time.Second {
			t.Errorf("%s: page = %+v, unknown %q", name, p, g.Unknown)
		}
	}
}
