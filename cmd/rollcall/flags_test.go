// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// TestPrecedence: flag over ROLLCALL_* over ETCDCTL_* over default.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("of-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type want struct{ Endpoints, User, Password, Output, Err string }
	for _, row := range []struct {
		name, args, env string
		want            want
	}{
		{"defaults", "", "", want{Endpoints: "127.0.0.1:2379"}},
		{"etcdctl's", "", "ETCDCTL_ENDPOINTS=a:1,b:2", want{Endpoints: "a:1,b:2"}},
		{"own over etcdctl's", "", "ETCDCTL_ENDPOINTS=a:1 ROLLCALL_ENDPOINTS=c:3", want{Endpoints: "c:3"}},
		{"flag over own", "--endpoints d:4,e:5", "ROLLCALL_ENDPOINTS=c:3", want{Endpoints: "d:4,e:5"}},
		{"empty is unset", "", "ETCDCTL_ENDPOINTS=a:1 ROLLCALL_ENDPOINTS=", want{Endpoints: "a:1"}},
		{"output", "", "ROLLCALL_OUTPUT=json", want{Endpoints: "127.0.0.1:2379", Output: "json"}},
		{"output is not etcdctl's", "", "ETCDCTL_OUTPUT=json", want{Endpoints: "127.0.0.1:2379"}},
		{"bad variable", "", "ROLLCALL_DIAL_TIMEOUT=soon", want{Err: `ROLLCALL_DIAL_TIMEOUT: "soon" is not a duration`}},
		{"inline password", "--user bob:a:b", "", want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "a:b"}},
		{"inline flag over variable", "--user bob:mine", "ROLLCALL_PASSWORD=x ETCDCTL_PASSWORD_FILE=y",
			want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "mine"}},
		{"password flag over inline", "--user bob:mine --password yours", "", want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "yours"}},
		{"user flag, password of the environment", "--user bob", "ETCDCTL_PASSWORD=x", want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "x"}},
		{"password flag over an inline variable", "--password mine", "ETCDCTL_USER=bob:x", want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "mine"}},
		{"file over inline of a farther source", "--user bob --password-file " + file, "ETCDCTL_USER=eve:x",
			want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "of-file"}},
		{"password of another user", "--user root", "ETCDCTL_USER=bob ETCDCTL_PASSWORD=x", want{Err: `user "root" has no password`}},
		{"password file of another user", "--user root", "ROLLCALL_PASSWORD_FILE=" + file + " ETCDCTL_USER=bob", want{Err: `user "root" has no password`}},
		{"the user named again", "--user bob", "ETCDCTL_USER=bob:x", want{Endpoints: "127.0.0.1:2379", User: "bob", Password: "x"}},
		{"two passwords of another user", "--user root:mine", "ETCDCTL_USER=bob ETCDCTL_PASSWORD=x ETCDCTL_PASSWORD_FILE=y",
			want{Endpoints: "127.0.0.1:2379", User: "root", Password: "mine"}},
		{"two passwords", "--user root", "ROLLCALL_PASSWORD=x ROLLCALL_PASSWORD_FILE=y", want{Err: "exclude each other"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := &app{getenv: func(name string) (string, bool) {
				for _, pair := range strings.Fields(row.env) {
					if key, value, _ := strings.Cut(pair, "="); key == name {
						return value, true
					}
				}
				return "", false
			}}
			root := newRoot(a)
			root.AddCommand(&cobra.Command{Use: "probe", RunE: func(*cobra.Command, []string) error { return nil }})
			root.SetArgs(append([]string{"probe"}, strings.Fields(row.args)...))
			err := root.ExecuteContext(t.Context())
			if row.want.Err != "" {
				if err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), row.want.Err) {
					t.Errorf("got %v, want %q as wrong usage", err, row.want.Err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if row.want.Output == "" {
				row.want.Output = "table"
			}
			got := want{Endpoints: strings.Join(a.endpoints, ","), User: a.user, Password: a.password, Output: a.output}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDiscoveryFails: without DNS etcd is not reached, and Ctrl-C is no failure.
func TestDiscoveryFails(t *testing.T) {
	for _, row := range []struct {
		name      string
		interrupt bool
		code      int
	}{
		{"no DNS", false, exitUnreachable},
		{"Ctrl-C", true, 130},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSession(t, "", nil)
			s.app.lookupSRV = func(ctx context.Context, _, _, name string) (string, []*net.SRV, error) {
				if !row.interrupt {
					return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
				}
				s.interrupt()
				<-ctx.Done()
				return "", nil, &net.DNSError{Err: ctx.Err().Error(), Name: name, UnwrapErr: ctx.Err()}
			}
			s.start([]string{"ls", "-d", "example.com", "--dial-timeout", "10s"})
			if code := s.end(t); code != row.code {
				t.Errorf("exit %d, want %d; stderr %q", code, row.code, s.stderr.String())
			}
			if !row.interrupt {
				wantIn(t, "stderr", s.stderr.String(), "cannot reach etcd at example.com: --discovery-srv example.com: lookup example.com: no such host")
			}
		})
	}
}

// What etcd's client dials is taken, with blanks and empty endpoints around it.
func TestGoodEndpoints(t *testing.T) {
	for given, want := range map[string]string{
		"127.0.0.1:2379":                    "127.0.0.1:2379",
		"a:1,":                              "a:1",
		" a:1, ,http://b:2/ ":               "a:1,http://b:2/",
		"[::1]:1,http://[::1]:1,:1":         "[::1]:1,http://[::1]:1,:1",
		"http:1,HTTPS://b:2,http://b:2?x#y": "http:1,HTTPS://b:2,http://b:2?x#y",
		"unix:a,unixs:///b,localhost:http":  "unix:a,unixs:///b,localhost:http",
	} {
		a := &app{settings: settings{endpoints: strings.Split(given, ",")}}
		if err := a.checkEndpoints(); err != nil || joined(a.endpoints) != want {
			t.Errorf("%q: got %q, %v, want %q", given, a.endpoints, err, want)
		}
	}
}
