// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

// tlsArgs are the flags of a serve with a certificate.
func tlsArgs(c *etcdtest.Certificate, more ...string) []string {
	return append([]string{"--grpc-cert", c.CertFile, "--grpc-key", c.KeyFile}, more...)
}

// clientArgs are the flags of a bootstrap for a client with a certificate; nil: with none.
func clientArgs(addr string, ca *etcdtest.CA, c *etcdtest.Certificate) []string {
	args := []string{"--server", addr, "--tls-ca", ca.File()}
	if c != nil {
		args = append(args, "--tls-cert", c.CertFile, "--tls-key", c.KeyFile)
	}
	return args
}

// handshake connects and asks for the server's health.
func handshake(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	return err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServeTLS: clients find a server over TLS, and certificates that were rotated are used.
func TestServeTLS(t *testing.T) {
	endpoint := sharedEtcd(t)
	addNamed(t, endpoint, "t-tls", "secured")
	ca, next := etcdtest.NewCA(t), etcdtest.NewCA(t)
	cert := ca.Issue("server", time.Hour)
	socket := filepath.Join(t.TempDir(), "s")
	s := beginServe(t, endpoint, tlsArgs(cert, "--xds", "127.0.0.1:0", "--xds", "unix:"+socket)...)
	awaitReady(t, s.admin)
	wantCall(t, dialXDS(t, "xds:///t-tls", clientArgs(s.xds[0], ca, nil)...), "secured")
	wantCall(t, dialXDS(t, "xds:///t-tls", "--server", s.xds[1]), "secured") // plaintext

	warned := must(t, endpoint, "xds", "bootstrap", "--server", s.xds[0])
	wantIn(t, "stderr", warned.stderr, "warning: server "+s.xds[0]+": ")
	if err := handshake(t, s.xds[0], next.ClientConfig(nil)); status.Code(err) != codes.Unavailable {
		t.Errorf("a CA that has not signed the certificate is content with it: %v", err)
	}
	next.Reissue(cert, time.Hour)
	eventually(t, "the new certificate is used", func() bool { return handshake(t, s.xds[0], next.ClientConfig(nil)) == nil })

	key, err := os.ReadFile(cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert.KeyFile, "")
	eventually(t, "the mistake is told", func() bool {
		return strings.Contains(s.stderr.String(), "files have changed and cannot be used; going on with their last content")
	})
	if err := handshake(t, s.xds[0], next.ClientConfig(nil)); err != nil {
		t.Errorf("the last certificate is not used any more: %v", err)
	}
	write(t, cert.KeyFile, string(key))
	eventually(t, "the end of it is told", func() bool { return strings.Count(s.stderr.String(), "files were read again") == 2 })
	if n := strings.Count(s.stderr.String(), "cannot be used"); n != 1 {
		t.Errorf("the mistake was told %d times", n)
	}
}

// TestServeRules: clients without a certificate are refused, those with one by rules that are
// followed when they change.
func TestServeRules(t *testing.T) {
	endpoint := sharedEtcd(t)
	addNamed(t, endpoint, "t-rules/shop", "shop")
	addNamed(t, endpoint, "t-rules/bank", "bank")
	ca := etcdtest.NewCA(t)
	cert, shopper, nobody := ca.Issue("server", time.Hour), ca.Issue("shopper", time.Hour, "shopper.test"), ca.Issue("nobody", time.Hour)
	file := filepath.Join(t.TempDir(), "rules")
	write(t, file, "shopper.test  t-rules/shop # and no more\n")
	s := beginServe(t, endpoint, tlsArgs(cert, "--grpc-client-ca", ca.File(), "--xds-allow", file)...)
	awaitReady(t, s.admin)

	wantCall(t, dialXDS(t, "xds:///t-rules/shop", clientArgs(s.xds[0], ca, shopper)...), "shop")
	if err := handshake(t, s.xds[0], ca.ClientConfig(nil)); status.Code(err) != codes.Unavailable {
		t.Errorf("a client without a certificate is served: %v", err)
	}
	if err := handshake(t, s.xds[0], etcdtest.NewCA(t).ClientConfig(shopper)); err == nil {
		t.Error("a client that does not know the CA is content")
	}
	for _, row := range []struct {
		client *etcdtest.Certificate
		want   string
	}{
		{shopper, `rollcall: localhost, shopper.test may not ask for "t-rules/bank"`},
		{nobody, `rollcall: localhost may not ask for "t-rules/bank"`},
	} {
		if _, err := call(t, dialXDS(t, "xds:///t-rules/bank", clientArgs(s.xds[0], ca, row.client)...)); status.Code(err) != codes.Unavailable {
			t.Errorf("a client that may not ask for a service calls it: %v", err)
		}
		if got := refusalOf(t, s.xds[0], ca.ClientConfig(row.client), "t-rules/bank"); got != row.want {
			t.Errorf("refused with %q, want %q", got, row.want)
		}
	}

	write(t, file, "shopper.test t-rules/\nbroken\n")
	eventually(t, "the mistake is told", func() bool {
		return strings.Contains(s.stderr.String(), file) && strings.Contains(s.stderr.String(), "line 2:")
	})
	if got := refusalOf(t, s.xds[0], ca.ClientConfig(shopper), "t-rules/bank"); got == "" {
		t.Error("half a file of rules is followed")
	}
	write(t, file, "shopper.test t-rules/\n")
	eventually(t, "the rules are followed", func() bool { return refusalOf(t, s.xds[0], ca.ClientConfig(shopper), "t-rules/bank") == "" })
	wantCall(t, dialXDS(t, "xds:///t-rules/bank", clientArgs(s.xds[0], ca, shopper)...), "bank")
}

// refusalOf asks for the endpoints of a service and returns why every call to it is to fail.
func refusalOf(t *testing.T, addr string, cfg *tls.Config, service string) string {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: t.Name()}, ResourceNames: []string{service},
		TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var assignment endpointv3.ClusterLoadAssignment
	if err := resp.Resources[0].UnmarshalTo(&assignment); err != nil {
		t.Fatal(err)
	}
	for _, drop := range assignment.GetPolicy().GetDropOverloads() {
		return drop.Category
	}
	return ""
}

func TestRules(t *testing.T) {
	r, err := parseRules([][]byte{[]byte("\n# all\n  spiffe://a.test/x#1 shop/ pay\t# these\n* public/\r\nops *\nspiffe://a.test/x#1 more/")})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		names, service string
		want           bool
	}{
		{"spiffe://a.test/x#1", "shop/cart", true},
		{"spiffe://a.test/x#1", "pay", true},
		{"spiffe://a.test/x#1", "more/or/less", true},
		{"spiffe://a.test/x#1", "shop", false},
		{"spiffe://a.test/x#1", "other", false},
		{"spiffe://a.test/x", "shop/cart", false},
		{"other spiffe://a.test/x#1", "shop/cart", true},
		{"", "public/x", true},
		{"", "shop/cart", false},
		{"ops", "anything", true},
	} {
		if got := r.allow(strings.Fields(row.names), row.service); got != row.want {
			t.Errorf("%q may ask for %q: %v, want %v", row.names, row.service, got, row.want)
		}
	}
	for text, want := range map[string]string{
		"a b\n\nname":   `line 3: "name" has no prefix of services`,
		"a shop*":       `line 1: prefix "shop*": a * stands alone`,
		"*.a.test shop": `line 1: name "*.a.test": a * stands alone`,
		"a \xff":        "line 1 is not UTF-8",
	} {
		if _, err := parseRules([][]byte{[]byte(text)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestServeBadFiles: one line that names the files and the cause, at once.
func TestServeBadFiles(t *testing.T) {
	ca := etcdtest.NewCA(t)
	one, two := ca.Issue("one", time.Hour), ca.Issue("two", time.Hour)
	missing, bad := filepath.Join(t.TempDir(), "missing"), filepath.Join(t.TempDir(), "bad")
	write(t, bad, "ok ok\nbad\n")
	for _, row := range []struct {
		name, want string
		args       []string
	}{
		{"certificate of another key", "private key does not match public key", []string{"--grpc-cert", one.CertFile, "--grpc-key", two.KeyFile}},
		{"missing certificate", missing + ": no such file", []string{"--grpc-cert", missing, "--grpc-key", one.KeyFile}},
		{"CA that is none", "no PEM certificate", tlsArgs(one, "--grpc-client-ca", one.KeyFile)},
		{"missing rules", "--xds-allow: open " + missing, tlsArgs(one, "--grpc-client-ca", ca.File(), "--xds-allow", missing)},
		{"bad rules", bad + `: line 2: "bad" has no prefix`, tlsArgs(one, "--grpc-client-ca", ca.File(), "--xds-allow", bad)},
	} {
		r := rollcallAt(t, "127.0.0.1:1", append([]string{"serve", "--admin", "", "--xds", "127.0.0.1:0"}, row.args...)...)
		if r.code != exitUsage || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
			t.Errorf("%s: exit %d with %q, want %d with one line", row.name, r.code, r.stderr, exitUsage)
		}
		wantIn(t, row.name, r.stderr, row.want)
	}
}

// TestServeWithFewRights: a role that may read one service and its config, as roles bridge has
// it, is enough to be ready.
func TestServeWithFewRights(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(t, server.Endpoint(), "add", "mine", startNamed(t, "mine"))
	check(client.RoleAdd(t.Context(), "root"))
	check(client.UserAdd(t.Context(), "root", "secret"))
	check(client.UserGrantRole(t.Context(), "root", "root"))
	check(client.UserAdd(t.Context(), "bob", "builder"))
	must(t, server.Endpoint(), "roles", "bridge", "mine", "--apply", "--grant-to", "bob")
	check(client.AuthEnable(t.Context()))

	s := beginServe(t, server.Endpoint(), "--user", "bob:builder")
	awaitReady(t, s.admin)
	wantCall(t, dialXDS(t, "xds:///mine", "--server", s.xds[0]), "mine")
	if _, err := call(t, dialXDS(t, "xds:///others", "--server", s.xds[0])); status.Code(err) != codes.Unavailable {
		t.Errorf("a service that may not be read: %v", err)
	}
}

// TestReadiness: etcd has answered if it lets the user log in, and once is enough.
func TestReadiness(t *testing.T) {
	srv := health.NewServer()
	r := newReadiness(srv)
	for _, row := range []struct {
		err    error
		code   int
		body   string
		status healthpb.HealthCheckResponse_ServingStatus
	}{
		{rpctypes.ErrAuthFailed, http.StatusServiceUnavailable, "authentication failed", healthpb.HealthCheckResponse_NOT_SERVING},
		{rollcall.ErrNoAnswer, http.StatusServiceUnavailable, "no answer from etcd", healthpb.HealthCheckResponse_NOT_SERVING},
		{rpctypes.ErrPermissionDenied, http.StatusOK, "ready", healthpb.HealthCheckResponse_SERVING},
		{rollcall.ErrNoAnswer, http.StatusOK, "ready", healthpb.HealthCheckResponse_SERVING},
	} {
		r.observe(nil, row.err)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, nil)
		resp, err := srv.Check(t.Context(), &healthpb.HealthCheckRequest{})
		if w.Code != row.code || err != nil || resp.Status != row.status {
			t.Errorf("after %v: %d and %v, want %d and %v", row.err, w.Code, resp, row.code, row.status)
		}
		wantIn(t, "body", w.Body.String(), row.body)
	}
	r.end()
	r.observe(&rollcall.ServiceConfig{}, nil)
	w := httptest.NewRecorder()
	if r.ServeHTTP(w, nil); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "shutting down") {
		t.Errorf("at the end: %d %q", w.Code, w.Body.String())
	}
}

// TestFileValue: what was read counts when it is read for the second time in a row; an error is
// told once, and the value stays.
func TestFileValue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules")
	write(t, file, "a b")
	v, err := newFileValue("--flag", parseRules, file)
	if err != nil {
		t.Fatal(err)
	}
	var log logtest.Buffer
	refresh := func(times int) string {
		for range times {
			v.refresh(log.Logger(slog.LevelInfo))
		}
		return log.Take()
	}
	for _, row := range []struct {
		content string
		times   int
		inUse   string // what "a" may ask for
		want    int    // lines
		text    string // in them
	}{
		{"a b", 2, "b", 0, ""},
		{"a", 1, "b", 0, ""},
		{"a", 3, "b", 1, `line 1: \"a\" has no prefix`},
		{"b", 3, "b", 1, `line 1: \"b\" has no prefix`},
		{"a b", 2, "b", 1, "were read again"},
		{"a c", 1, "b", 0, ""}, // of a file that is being written
		{"a cd", 1, "b", 0, ""},
		{"a cd", 2, "cd", 1, "were read again"},
		{"a c", 1, "cd", 0, ""},
		{"a cd", 3, "cd", 0, ""},
	} {
		write(t, file, row.content)
		got := refresh(row.times)
		if strings.Count(got, "\n") != row.want || !strings.Contains(got, row.text) {
			t.Errorf("%q, %d times: told %q, want %d lines with %q", row.content, row.times, got, row.want, row.text)
		}
		if inUse := strings.Join((*v.get())["a"], " "); inUse != row.inUse {
			t.Errorf("%q, %d times: %q in use, want %q", row.content, row.times, inUse, row.inUse)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := refresh(3); strings.Count(got, "\n") != 1 || !strings.Contains(got, "no such file") {
		t.Errorf("without the file: told %q", got)
	}
}
