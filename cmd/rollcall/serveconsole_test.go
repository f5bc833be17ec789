// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

var consoleAt = regexp.MustCompile(`console at (https?://\S+);`)

// TestConsoleAccess: serve does not start with a page that is open to others than this host, and
// says the way out.
func TestConsoleAccess(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	write(t, short, "abc\n")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--console", "0.0.0.0:0"}, "give --console-cert and --console-key, or listen at 127.0.0.1"},
		{[]string{"--console", "0.0.0.0:0", "--console-cert", "c", "--console-key", "k"}, "give --console-token-file, --console-client-ca or --console-etcd-users"},
		{[]string{"--console", "127.0.0.1:0", "--console-cert", "c"}, "go together"},
		{[]string{"--console", "127.0.0.1:0", "--console-client-ca", "c"}, "needs --console-cert"},
		{[]string{"--console", "127.0.0.1:0", "--console-token-file", "t", "--console-etcd-users"}, "exclude each other"},
		{[]string{"--console", "127.0.0.1:0", "--console-token-file", short}, "want at least 16"},
		{[]string{"--console", "127.0.0.1:0", "--console-token-file", filepath.Join(dir, "none")}, "no such file"},
		{[]string{"--console", "nonsense"}, "write HOST:PORT"},
		{[]string{"--console-writes"}, "need --console ADDR"},
		{[]string{"--admin", "", "--xds", ""}, "there is nothing to serve"},
	} {
		args := append([]string{"serve"}, row.args...)
		if !strings.Contains(strings.Join(args, " "), "--xds") {
			args = append(args, "--xds", "127.0.0.1:0", "--admin", "")
		}
		r := rollcallAt(t, "127.0.0.1:1", args...)
		if r.code != exitUsage || !strings.Contains(r.stderr, row.want) {
			t.Errorf("%v: exit code %d with %q, want %q", row.args, r.code, r.stderr, row.want)
		}
	}
}

// TestServeConsole: a page beside xDS, over TLS, with a token that is replaced on disk; HTTP/2 is
// spoken, and a page of someone else's that resolves to this host is refused.
func TestServeConsole(t *testing.T) {
	endpoint := sharedEtcd(t)
	must(t, endpoint, "add", "t-console", "127.0.0.1:50051", "--id", "one")
	ca := etcdtest.NewCA(t)
	cert := ca.Issue("server", time.Hour)
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "a token for this test\n")
	s := beginServe(t, endpoint, "--console", "127.0.0.1:0", "--console-cert", cert.CertFile, "--console-key", cert.KeyFile, "--console-token-file", token)
	address := consoleAt.FindStringSubmatch(s.stderr.String())[1]
	transport := &http.Transport{TLSClientConfig: ca.ClientConfig(nil), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	get := func(path, bearer, host string) (status int, body, proto string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
		if host != "" {
			r.Host = host
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(data), resp.Proto
	}
	status, body, proto := get("/service?name=t-console", "a token for this test", "")
	if status != http.StatusOK || proto != "HTTP/2.0" || !strings.Contains(body, "127.0.0.1:50051") {
		t.Errorf("the page is answered with %d over %s: %s", status, proto, body)
	}
	if status, _, _ := get("/", "a token for this test", "evil.example"); status != http.StatusForbidden {
		t.Errorf("another host's name is answered with %d", status)
	}
	if status, body, _ := get("/clients", "a token for this test", ""); status != http.StatusOK || !strings.Contains(body, "0 clients are served") {
		t.Errorf("clients: %d %s", status, body)
	}
	write(t, token, "another token of this test\n")
	eventually(t, "the new token is read", func() bool { return strings.Contains(s.stderr.String(), "files were read again") })
	if status, _, _ := get("/", "another token of this test", ""); status != http.StatusOK {
		t.Errorf("the new token is answered with %d", status)
	}
	if status, _, _ := get("/", "a token for this test", ""); status != http.StatusUnauthorized {
		t.Errorf("the old token is answered with %d", status)
	}
	if code := s.stop(t); code != 130 && code != 143 && code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestLooksAreNotInMetrics: that somebody looks at a service that has no endpoint, or has Prometheus
// ask for it, is no reason for an alert.
func TestLooksAreNotInMetrics(t *testing.T) {
	s := beginServe(t, sharedEtcd(t), "--console", "127.0.0.1:0")
	address := strings.TrimPrefix(consoleAt.FindStringSubmatch(s.stderr.String())[1], "http://")
	for _, page := range []struct{ addr, path string }{{address, "/service?name=t-mistyped"}, {s.admin, "/prometheus/sd?service=t-mistyped"}} {
		if code, body := get(t, page.addr, page.path); code != http.StatusOK {
			t.Errorf("%s: %d %q", page.path, code, body)
		}
	}
	if _, body := get(t, s.admin, "/metrics"); strings.Contains(body, "t-mistyped") || !strings.Contains(body, "rollcall_services{") {
		t.Errorf("metrics:\n%s", body)
	}
}
