// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// TestBadInput: each is one line on stderr with the cause, the right code, nothing on
// stdout and nothing written, at once.
func TestBadInput(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	missing := filepath.Join(t.TempDir(), "missing")
	for _, row := range []struct {
		name, args, want string
		code             int
	}{
		{"address without a port", "add svc 1.2.3.4", "host:port", exitUsage},
		{"address with a named port", "add svc 1.2.3.4:http", "port must be a number", exitUsage},
		{"port 0", "add svc 1.2.3.4:0", "port must be a number", exitUsage},
		{"unix address", "add svc unix:/tmp/x", `"unix:/tmp/x"`, exitUsage},
		{"unspecified address", "add svc 0.0.0.0:80", "unspecified", exitUsage},
		{"empty service", "add | 1.2.3.4:80", "names no service", exitUsage},
		{"service of slashes", "add // 1.2.3.4:80", "names no service", exitUsage},
		{"add to the service configs", "add _grpc_config 1.2.3.4:80 --id my-service --force", "use rollcall config set", exitUsage},
		{"add below the service configs", "add _grpc_config/a/ 1.2.3.4:80", "use rollcall config set", exitUsage},
		{"register among the service configs", "register _grpc_config --addr 1.2.3.4:80", "use rollcall config set", exitUsage},
		{"drain of a service config", "drain _grpc_config my-service", "use rollcall config set", exitUsage},
		{"undrain of a service config", "undrain _grpc_config my-service", "use rollcall config set", exitUsage},
		{"weight of a service config", "weight _grpc_config my-service 2", "use rollcall config set", exitUsage},
		{"role that registers service configs", "roles registrar _grpc_config", "use rollcall config set", exitUsage},
		{"get of slashes", "get /", "names no service", exitUsage},
		{"watch of slashes", "watch /", "names no service", exitUsage},
		{"history of slashes", "history /", "names no service", exitUsage},
		{"history since nothing", "history svc --since 0s", `--since: "0s" must be more than 0`, exitUsage},
		{"history of revision 0", "history svc --revision 0", "--revision 0: must be at least 1", exitUsage},
		{"history with a bad admin address", "history svc --admin 1", "write HOST:PORT", exitUsage},
		{"rm of slashes", "rm / x", "names no service", exitUsage},
		{"rm of an empty id", "rm svc |", "id is empty", exitUsage},
		{"resolve of slashes", "resolve /", "names no service", exitUsage},
		{"resolve of another scheme", "resolve dns:///svc", "scheme is not etcd", exitUsage},
		{"resolve of no URL", "resolve etcd://%zz/svc", "invalid target", exitUsage},
		{"resolve of a meaningless fragment", "resolve etcd:///svc#x", "invalid target", exitUsage},
		{"metadata no JSON", "add svc 1.2.3.4:80 --metadata {x", "--metadata is not JSON", exitUsage},
		{"metadata with more behind", "add svc 1.2.3.4:80 --metadata 1,2", "--metadata is not JSON", exitUsage},
		{"metadata over 1 MiB", `add svc 1.2.3.4:80 --metadata "` + strings.Repeat("x", 1<<20) + `"`, "over the limit", exitUsage},
		{"TTL under a second", "add svc 1.2.3.4:80 --ttl 999ms", "at least 1s", exitUsage},
		{"TTL of zero", "add svc 1.2.3.4:80 --ttl 0s", "at least 1s", exitUsage},
		{"TTL without a unit", "add svc 1.2.3.4:80 --ttl 10", `--ttl: "10" has no unit: want a duration such as 10s or 10m`, exitUsage},
		{"TTL beyond etcd's", "add svc 1.2.3.4:80 --ttl 2520000h", "lease", exitUsage},
		{"register without address", "register svc", "--addr is missing", exitUsage},
		{"register with a bad address", "register svc --addr 1.2.3.4", "host:port", exitUsage},
		{"register with a short TTL", "register svc --addr 1.2.3.4:80 --ttl 1ms", "at least 1s", exitUsage},
		{"register with bad metadata", "register svc --addr 1.2.3.4:80 --metadata {", "--metadata is not JSON", exitUsage},
		{"register without service", "register --addr 1.2.3.4:80", "service is missing", exitUsage},
		{"register without service, with command", "register --addr 1.2.3.4:80 -- true", "service is missing", exitUsage},
		{"register with a command without --", "register svc --addr 1.2.3.4:80 true", "command goes after --", exitUsage},
		{"register with nothing after --", "register svc --addr 1.2.3.4:80 --", "no command", exitUsage},
		{"register of a missing command", "register svc --addr 1.2.3.4:80 -- no-such-command", "cannot start", exitNoCommand},
		{"register of a missing file", "register svc --addr 1.2.3.4:80 -- ./no-such-file", "cannot start", exitNoCommand},
		{"register of a directory", "register svc --addr 1.2.3.4:80 -- /", "cannot start", exitCannotRun},
		{"endpoint without a port", "get svc --endpoints 127.0.0.1", `--endpoints: "127.0.0.1" is not an endpoint: missing port in address; want HOST:PORT`, exitUsage},
		{"endpoint of IPv6 without brackets", "get svc --endpoints ::1:2379", "goes in brackets, as in [::1]:2379", exitUsage},
		{"endpoint with a bad port", "get svc --endpoints a:99999", `"99999" is not a port`, exitUsage},
		{"endpoint with port 0", "get svc --endpoints a:0", `"0" is not a port`, exitUsage},
		{"endpoint with half a port", "get svc --endpoints a:", `"" is not a port`, exitUsage},
		{"endpoint without slashes", "get svc --endpoints http:a:1", "too many colons", exitUsage},
		{"endpoint of a bad host", "get svc --endpoints https//a:1", `"https//a" is not a host`, exitUsage},
		{"endpoint of another scheme", "get svc --endpoints grpc://a:1", `unknown scheme "grpc"`, exitUsage},
		{"endpoint with a password", "get svc --endpoints http://user:secret@a:1", `"...@a:1" is not an endpoint: a name goes into --user`, exitUsage},
		{"endpoint with a zone", "get svc --endpoints [fe80::1%eth0]:1", "no zones", exitUsage},
		{"endpoint that is a path", "get svc --endpoints /etcd.sock", "it is a path; want", exitUsage},
		{"endpoint of no socket", "get svc --endpoints unix://", "the path is missing", exitUsage},
		{"endpoints without commas", "get svc --endpoints a:1;b:1", "separated by commas", exitUsage},
		{"endpoint beside a good one", "get svc --endpoints 127.0.0.1:2379,a", `"a" is not an endpoint`, exitUsage},
		{"unknown flag", "get svc --colour", "unknown flag: --colour; see rollcall get --help", exitUsage},
		{"unknown command", "gte svc", "did you mean get?", exitUsage},
		{"unknown command, nothing alike", "frobnicate", "see rollcall --help", exitUsage},
		{"help on an unknown command", "help gte", "did you mean get?", exitUsage},
		{"flag with a typing error", "get svc --endpoint x", "unknown flag: --endpoint; did you mean --endpoints?", exitUsage},
		{"flag without a value", "get svc --endpoints", "--endpoints needs a value: etcd's endpoints", exitUsage},
		{"too few arguments, and an example", "get", "SERVICE is missing; usage: rollcall get SERVICE [ID|HOST:PORT]...; for example: rollcall get my-service", exitUsage},
		{"too many arguments, and which", "resolve a b", `unexpected argument "b"`, exitUsage},
		{"too few arguments", "get", "usage: rollcall get SERVICE", exitUsage},
		{"too many arguments", "resolve a b", "usage: rollcall resolve TARGET", exitUsage},
		{"too many arguments of ls", "ls a b", "usage: rollcall ls", exitUsage},
		{"arguments of version", "version x", "usage: rollcall version", exitUsage},
		{"role of an unknown kind", "roles reader x", "want one of registrar, resolver, viewer", exitUsage},
		{"role without a service", "roles registrar", "needs a service", exitUsage},
		{"role for no service", "roles resolver /", "invalid service", exitUsage},
		{"role for a pattern", "roles operator team-a/*", "for all services under a prefix: rollcall roles operator --prefix team-a/", exitUsage},
		{"role for a pattern without a slash", "roles viewer team-*", "rollcall roles viewer --prefix PREFIX/", exitUsage},
		{"role for a pattern as a prefix", "roles viewer --prefix a/team-*/", "rollcall roles viewer --prefix a/", exitUsage},
		{"role for a prefix without a slash", "roles operator --prefix team-a", `would include "team-ab/"; give team-a/`, exitUsage},
		{"role for no prefix", "roles viewer --prefix", "--prefix needs a prefix", exitUsage},
		{"role for all by a prefix", "roles viewer --prefix /", "names no service", exitUsage},
		{"role for an empty prefix", "roles viewer --prefix |", "names no service", exitUsage},
		{"role that registers service configs by a prefix", "roles operator --prefix _grpc_config/", "use rollcall config set", exitUsage},
		{"role to extend without applying", "roles viewer --extend", "--extend needs --apply", exitUsage},
		{"role of etcd's own", "roles viewer svc --name root --grant-to bob", "give another name", exitUsage},
		{"unknown shell", "completion tcsh", "usage: rollcall completion", exitUsage},
		{"unknown output", "get svc -o xml", `rollcall get has no output "xml": want table, wide, json, yaml or name`, exitUsage},
		{"output of another command", "resolve svc -o yaml", `rollcall resolve has no output "yaml": want table or json`, exitUsage},
		{"dial time-out of zero", "ls --dial-timeout 0s", "must be positive", exitUsage},
		{"no endpoint", "ls --endpoints |", "--endpoints: there is none", exitUsage},
		{"user without password", "ls --user bob", "has no password", exitUsage},
		{"user with an empty password", "ls --user bob:", "has no password", exitUsage},
		{"two passwords", "ls --user bob --password x --password-file y", "exclude each other", exitUsage},
		{"a password of nobody", "ls --password x", "a password was given without a user", exitUsage},
		{"missing password file", "ls --user bob --password-file " + missing, "--password-file", exitUsage},
		{"missing CA", "ls --cacert " + missing, "--cacert", exitUsage},
		{"CA without certificate", "ls --cacert main.go", "no PEM certificate", exitUsage},
		{"certificate without key", "ls --cert " + missing, "go together", exitUsage},
		{"missing certificate", "ls --cert " + missing + " --key " + missing, "invalid certificate and key", exitUsage},
		{"service without keys", "get no-such-service", `no key under "no-such-service/"`, exitNotFound},
		{"target without endpoints", "resolve no-such-service", "no usable key", exitNotFound},
		{"nothing to remove", "rm no-such-service x", "not found: no key under", exitNotFound},
		{"one of several to remove", "rm no-such-service x y", "not found: no key under", exitNotFound},
		{"ids and a selector of history", "history svc a -l zone=eu-1", "give no ids with it", exitUsage},
		{"selector of watch without a value", "watch svc -l zone", "write FIELD=VALUE", exitUsage},
		{"drain of slashes", "drain / x", "names no service", exitUsage},
		{"drain of an empty id", "drain svc |", "id is empty", exitUsage},
		{"drain of nothing", "drain no-such-service x", "not found: no key under", exitNotFound},
		{"drain without an id", "drain svc", "usage: rollcall drain SERVICE", exitUsage},
		{"weight of zero", "weight svc x 0", "see rollcall drain", exitUsage},
		{"weight beyond 32 bits", "weight svc x 4294967296", "whole number from 1", exitUsage},
		{"weight with a fraction", "weight svc x 1.5", "whole number from 1", exitUsage},
		{"weight without a number", "weight svc x", "usage: rollcall weight", exitUsage},
		{"weight of nothing", "weight no-such-service x 3", "not found: no key under", exitNotFound},
		{"config of nothing alike", "config frobnicate svc", "unknown command \"frobnicate\"; see rollcall config --help", exitUsage},
		{"config misspelt", "config gte svc", "did you mean get?", exitUsage},
		{"config of slashes", "config get /", "names no service", exitUsage},
		{"config that is not there", "config get no-such-service", `no key "_grpc_config/no-such-service"`, exitNotFound},
		{"config to remove that is not there", "config rm no-such-service", `no key "_grpc_config/no-such-service"`, exitNotFound},
		{"config from a missing file", "config set svc " + missing, "no such file", exitUsage},
		{"config from nothing", "config set svc", "standard input is empty", exitUsage},
		{"config that is no JSON", "config set svc main.go", "invalid service config", exitUsage},
		{"config from a directory", "config set svc testdata", "is a directory", exitUsage},
		{"refused connection of drain", "drain svc x --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of config", "config get svc --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"selector of an unknown field", "resolve svc?colour=red", "unknown field \"colour\"", exitUsage},
		{"selector of no weight", "resolve svc?weight=heavy", "weight", exitUsage},
		{"refused connection", "ls --endpoints 127.0.0.1:1", "127.0.0.1:1: connect: connection refused; is it running?", exitUnreachable},
		{"refused connection of get", "get svc --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of watch", "watch svc --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of add", "add svc 1.2.3.4:80 --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of rm", "rm svc x --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of resolve", "resolve svc --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of register", "register svc --addr 1.2.3.4:80 --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"refused connection of register with command", "register svc --addr 1.2.3.4:80 --endpoints 127.0.0.1:1 -- echo started", "connection refused", exitUnreachable},
		{"serve of all addresses in plaintext", "serve --xds :0 --admin |", "are served over TLS: give --grpc-cert and --grpc-key, or --xds-insecure", exitUsage},
		{"serve of another host in plaintext", "serve --xds 192.0.2.1:18000 --admin |", "are served over TLS", exitUsage},
		{"serve of no address", "serve --xds nowhere --admin |", "write HOST:PORT or unix:PATH", exitUsage},
		{"serve of no socket", "serve --xds unix: --admin |", "the path is missing", exitUsage},
		{"serve of a socket in no directory", "serve --xds unix:" + missing + "/s --admin |", "cannot listen", exitOther},
		{"serve of a foreign address", "serve --xds 192.0.2.1:18000 --xds-insecure --admin |", "cannot listen", exitOther},
		{"serve with a bad admin address", "serve --xds 127.0.0.1:0 --admin 2381", "write HOST:PORT", exitUsage},
		{"serve with half a certificate", "serve --grpc-cert x", "go together", exitUsage},
		{"serve with a client CA alone", "serve --grpc-client-ca x", "needs --grpc-cert", exitUsage},
		{"serve with rules for nobody", "serve --xds-allow x", "needs --grpc-client-ca", exitUsage},
		{"serve with and without TLS", "serve --xds-insecure --grpc-cert x --grpc-key x", "exclude each other", exitUsage},
		{"serve of no streams", "serve --xds-max-streams 0", "at least 1", exitUsage},
		{"serve of no names", "serve --xds-max-names -1", "at least 1", exitUsage},
		{"serve of metrics of less than no service", "serve --metrics-services -1", "at least 0", exitUsage},
		{"serve of no endpoints", "serve --xds-subset 0", "at least 1", exitUsage},
		{"serve that pushes at all times", "serve --xds-push-interval 0s", "at least 1ms", exitUsage},
		{"serve of very short connections", "serve --xds-max-connection-age 1ms", "at least 1s", exitUsage},
		{"serve with arguments", "serve my-service", "usage: rollcall serve", exitUsage},
		{"serve with no endpoint of etcd", "serve --xds 127.0.0.1:0 --admin | --endpoints |", "--endpoints", exitUsage},
		{"xds of nothing alike", "xds frobnicate", "see rollcall xds --help", exitUsage},
		{"bootstrap without a port", "xds bootstrap --server 10.0.0.1", "write HOST:PORT, dns:///NAME:PORT or unix:PATH", exitUsage},
		{"bootstrap with a named port", "xds bootstrap --server dns:///a:http", "the port must be a number", exitUsage},
		{"bootstrap for all addresses", "xds bootstrap --server 0.0.0.0:18000", "it names no host", exitUsage},
		{"bootstrap of another scheme", "xds bootstrap --server xds:///a:80", "it is no address", exitUsage},
		{"bootstrap for no socket", "xds bootstrap --server unix:///", "the path is missing", exitUsage},
		{"bootstrap with a certificate alone", "xds bootstrap --tls-cert x", "go together", exitUsage},
		{"bootstrap with a bad authority", "xds bootstrap --authority a/b", "not a name", exitUsage},
		{"clients of nobody", "xds clients --admin 127.0.0.1:1", "connection refused; is it running? see --admin", exitOther},
		{"clients of no address", "xds clients --admin 2381", "write HOST:PORT", exitUsage},
		{"clients of an etcd", "xds clients --admin " + endpoint, "is that a rollcall serve?", exitOther},
		{"explain without a service", "xds explain", "usage: rollcall xds explain SERVICE", exitUsage},
		{"explain of slashes", "xds explain /", "names no service", exitUsage},
		{"explain with a bad selector", "xds explain svc?colour=red", `unknown field "colour"`, exitUsage},
		{"explain of nothing", "xds explain xds:///no-such-service", `no key under "no-such-service/"`, exitNotFound},
		{"refused connection of explain", "xds explain svc --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
		{"TLS where there is none", "ls --endpoints https://" + endpoint, "does it speak TLS", exitUnreachable},
		{"user of an etcd without users, wrong endpoint", "ls --user bob:pw --endpoints 127.0.0.1:1", "connection refused", exitUnreachable},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, leases := revisionOf(t, client), leaseCount(t, client)
			args := strings.Split(row.args, " ")
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "|", "")
			}
			began := time.Now()
			s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, args...)
			code := s.end(t)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %v, want the dial time-out of 2s at most", took)
			}
			stderr := s.stderr.String()
			if code != row.code || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "rollcall: ") {
				t.Errorf("exit %d with %q, want %d with one line", code, stderr, row.code)
			}
			wantIn(t, "stderr", stderr, row.want)
			if out := s.stdout.String(); out != "" {
				t.Errorf("stdout = %q, want nothing", out)
			}
			if after := revisionOf(t, client); after != before {
				t.Errorf("something was written: revision %d, then %d", before, after)
			}
			if left := leaseCount(t, client); left > leases {
				t.Errorf("%d leases, then %d", leases, left)
			}
		})
	}
}

// TestUnanswered: servers that take connections and are of no use.
func TestUnanswered(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // connects, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	serve := func(opts ...grpc.ServerOption) string {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(opts...)
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(lis) }()
		t.Cleanup(func() { server.Stop(); <-done })
		return lis.Addr().String()
	}
	frozen := serve(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return context.Cause(stream.Context())
	}))
	other := serve()
	for _, row := range []struct {
		name, endpoint, want string
		code                 int
	}{
		{"mute", mute.Addr().String(), "no answer from etcd: still connecting", exitUnreachable},
		{"frozen", frozen, "did not answer within 500ms", exitTimeout},
		{"other server", other, "unknown service etcdserverpb.KV", exitUnreachable},
	} {
		for _, command := range []string{"ls", "get svc", "watch svc", "add svc 1.2.3.4:80", "add svc 1.2.3.4:80 --ttl 5s",
			"rm svc x", "resolve svc", "register svc --addr 1.2.3.4:80", "register svc --addr 1.2.3.4:80 -- sleep 20"} {
			if row.name == "other server" && command != "ls" {
				continue
			}
			t.Run(row.name+"/"+command, func(t *testing.T) {
				began := time.Now()
				s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + row.endpoint, "ETCDCTL_DIAL_TIMEOUT=500ms"}, strings.Split(command, " ")...)
				code := s.end(t)
				stderr := s.stderr.String()
				if code != row.code || strings.Count(stderr, "\n") != 1 || s.stdout.String() != "" {
					t.Errorf("exit %d with %q, want %d with one line", code, stderr, row.code)
				}
				wantIn(t, "stderr", stderr, row.want, row.endpoint)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
	}
}

// TestInterrupted: a signal while etcd is waited for ends the command with its code.
func TestInterrupted(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, command := range []string{"ls", "watch svc", "resolve svc", "register svc --addr 1.2.3.4:80"} {
		s := begin(t, []string{"ETCDCTL_ENDPOINTS=" + mute.Addr().String(), "ETCDCTL_DIAL_TIMEOUT=20s"}, strings.Split(command, " ")...)
		time.Sleep(50 * time.Millisecond)
		s.interrupt()
		if code := s.end(t); code != 130 || s.stderr.String() != "" {
			t.Errorf("%s: exit %d with %q, want 130 without a word", command, code, s.stderr.String())
		}
	}
}
