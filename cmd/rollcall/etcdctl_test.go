// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// TestEtcdctlFlags: a new global flag of etcdctl has to be honoured or refused here as well.
func TestEtcdctlFlags(t *testing.T) {
	help, err := exec.Command(etcdtest.Binary(t, "etcdctl"), "options").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^ +(?:-(\w), )?--([a-z-]+)`).FindAllStringSubmatch(string(help), -1)
	if len(found) < 20 {
		t.Fatalf("%d flags in %q", len(found), help)
	}
	flags := newRoot(&app{}).PersistentFlags()
	for _, flag := range found {
		short, name := flag[1], flag[2]
		switch mine := flags.Lookup(name); {
		case name == "help":
		case mine == nil:
			t.Errorf("etcdctl has --%s, and rollcall does not", name)
		case mine.Shorthand != short:
			t.Errorf("--%s has the short form %q, and %q in etcdctl", name, mine.Shorthand, short)
		case !strings.Contains(etcdctlHelp, "--"+name):
			t.Errorf("rollcall help etcdctl does not tell of --%s", name)
		}
	}
}

func TestEtcdctlTLS(t *testing.T) {
	ca := etcdtest.NewCA(t)
	cluster := etcdtest.New(t, etcdtest.Options{TLS: ca})
	cert := ca.Issue("client", time.Hour)
	other := etcdtest.NewCA(t)
	endpoint := strings.TrimPrefix(cluster.Endpoints()[0], "https://")
	client := " --cert " + cert.CertFile + " --key " + cert.KeyFile
	for _, row := range []struct {
		name, args string
		code       int
	}{
		{"the CA is given", "--cacert " + ca.File() + client, 0},
		{"another CA", "--cacert " + other.File() + client, exitUnreachable},
		{"no CA", client, exitUnreachable},
		{"not verified", "--insecure-skip-tls-verify" + client, 0},
		{"not verified, no certificate of the client", "--insecure-skip-tls-verify", exitUnreachable},
		{"no file, but TLS", "--insecure-transport=false", exitUnreachable},
		{"no TLS at all", "", exitUnreachable},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := rollcallAt(t, endpoint, strings.Fields("ls "+row.args)...)
			if r.code != row.code {
				t.Errorf("exit %d, want %d; stderr %q", r.code, row.code, r.stderr)
			}
			if tls := strings.Contains(r.stderr, "certificate"); row.code != 0 && tls == (row.args == "") {
				t.Errorf("stderr = %q", r.stderr)
			}
		})
	}
}

// TestDiscovery: DNS names the endpoints.
func TestDiscovery(t *testing.T) {
	ca := etcdtest.NewCA(t)
	secure, plain := etcdtest.New(t, etcdtest.Options{TLS: ca}), sharedEtcd(t)
	cert := ca.Issue("client", time.Hour)
	record := func(endpoint string) *net.SRV {
		host, port, _ := strings.Cut(endpoint[strings.LastIndex(endpoint, "/")+1:], ":")
		number, _ := strconv.Atoi(port)
		return &net.SRV{Target: host + ".", Port: uint16(number)}
	}
	lookup := func(_ context.Context, service, _, domain string) (string, []*net.SRV, error) {
		switch service + " " + domain {
		case "etcd-client-ssl example.com", "etcd-client-ssl-blue 127.0.0.1":
			return "", []*net.SRV{record(secure.Endpoints()[0])}, nil
		case "etcd-client plain.example.com":
			return "", []*net.SRV{record(plain)}, nil
		}
		return "", nil, &net.DNSError{Err: "no such host", Name: domain, IsNotFound: true}
	}
	files := []string{"--cacert", ca.File(), "--cert", cert.CertFile, "--key", cert.KeyFile}
	for _, row := range []struct {
		name, args string
		files      []string
		code       int
		stderr     string
	}{
		{name: "with TLS", args: "-d example.com", files: files},
		{name: "without TLS", args: "-d plain.example.com"},
		{name: "without TLS, and not accepted", args: "-d plain.example.com --insecure-discovery=false", code: exitOther, stderr: "has no TLS, and --insecure-discovery is false"},
		{name: "the certificate is for another domain", args: "-d example.com --insecure-discovery=false", files: files,
			code: exitUnreachable, stderr: "not example.com"},
		{name: "the certificate is for the domain", args: "-d 127.0.0.1 --insecure-discovery=false --discovery-srv-name blue", files: files},
		{name: "nothing there", args: "-d nowhere.example.com", code: exitUnreachable, stderr: "--discovery-srv nowhere.example.com: lookup nowhere.example.com: no such host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSession(t, "", nil)
			s.app.lookupSRV = lookup
			s.start(append(strings.Fields("ls discovery/ --dial-timeout 10s "+row.args), row.files...))
			if code := s.end(t); code != row.code || !strings.Contains(s.stderr.String(), row.stderr) {
				t.Errorf("exit %d, want %d; stderr %q, want %q", code, row.code, s.stderr.String(), row.stderr)
			}
		})
	}
}

// TestDiscoveryUnanswered: a DNS server that does not answer is waited for no longer than the user wants.
func TestDiscoveryUnanswered(t *testing.T) {
	for _, row := range []struct {
		name, timeout string
		code          int
		stderr        string
	}{
		{"SIGINT", "1h", 130, ""},
		{"the dial time-out", "50ms", exitUnreachable, "cannot reach etcd at example.com: --discovery-srv example.com: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked, done := make(chan bool, 2), make(chan bool)
			s := newSession(t, "", nil)
			s.app.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
				asked <- true
				<-done
				return "", nil, errors.New("too late")
			}
			s.start(strings.Fields("ls -d example.com --dial-timeout " + row.timeout))
			<-asked
			if row.code == 130 {
				s.interrupt()
			}
			if code := s.end(t); code != row.code || !strings.Contains(s.stderr.String(), row.stderr) || row.stderr == "" && s.stderr.String() != "" {
				t.Errorf("exit %d, want %d; stderr %q, want %q", code, row.code, s.stderr.String(), row.stderr)
			}
			close(done)
		})
	}
}
