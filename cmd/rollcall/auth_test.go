// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// TestClientOf: a client is its user's or nobody's. A user may have an empty password in etcd, with
// which clientv3 would send no token.
func TestClientOf(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	ctx := t.Context()
	for user, password := range map[string]string{"root": "secret", "bob": "builder", "empty": ""} {
		if _, err := client.UserAdd(ctx, user, password); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.RoleAdd(ctx, "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UserGrantRole(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	a := &app{settings: settings{endpoints: []string{server.Endpoint()}, insecureTransport: true, dialTimeout: 5 * time.Second}}
	for _, typed := range []struct{ user, password string }{{"empty", ""}, {"bob", ""}, {"", "builder"}, {"", ""}, {"bob", "wrong"}} {
		of, err := a.clientOf(ctx, typed.user, typed.password)
		if !errors.Is(err, rpctypes.ErrAuthFailed) {
			t.Errorf("%q: %v", typed, err)
		}
		if err == nil {
			_ = of.Close()
		}
	}
	of, err := a.clientOf(ctx, "bob", "builder")
	if err != nil {
		t.Fatal(err)
	}
	defer of.Close()
	if _, err := of.Get(ctx, "key"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("bob, who has no role, reads: %v", err)
	}
}

// TestUsers runs commands as users of an etcd that has them.
func TestUsers(t *testing.T) {
	server := freshEtcd(t)
	client := etcdClient(t, server.Endpoint())
	ctx := t.Context()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put1(t, client, "open/a", `{"Addr":"10.0.0.1:80"}`)
	check(client.RoleAdd(ctx, "root"))
	check(client.UserAdd(ctx, "root", "secret"))
	check(client.UserGrantRole(ctx, "root", "root"))
	check(client.RoleAdd(ctx, "reader"))
	check(client.RoleGrantPermission(ctx, "reader", "open/", "open0", clientv3.PermissionType(clientv3.PermRead)))
	check(client.UserAdd(ctx, "bob", "builder"))
	check(client.UserGrantRole(ctx, "bob", "reader"))
	check(client.AuthEnable(ctx))
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("builder\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, args, env string
		code            int
		want            string
	}{
		{"nobody", "get open", "", exitNotPermitted, "denied access without a user"},
		{"nobody adds", "add open 10.0.0.2:80", "", exitNotPermitted, "user name is empty; this etcd has users: give --user NAME, or ROLLCALL_USER"},
		{"wrong password", "get open --user bob:wrong", "", exitNotPermitted, `as user "bob": `},
		{"unknown user", "ls --user eve:x", "", exitNotPermitted, "authentication failed"},
		{"reader gets", "get open --user bob:builder", "", 0, "10.0.0.1:80"},
		{"reader resolves", "resolve open --user bob --password builder", "", 0, "10.0.0.1:80"},
		{"reader lists its prefix", "ls open/ --user bob --password-file " + file, "", 0, "open"},
		{"reader from the environment", "get open", "ROLLCALL_USER=bob:builder ETCDCTL_PASSWORD=wrong", 0, "10.0.0.1:80"},
		{"reader lists all", "ls --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader gets all", "get -A --user bob:builder", "", exitNotPermitted, `list all services: list "": etcdserver: permission denied; for those that may be read, name a SERVICE`},
		{"reader gets others", "get secret --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader resolves others", "resolve secret --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader watches others", "watch secret --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader adds", "add open 10.0.0.2:80 --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader adds under a lease", "add open 10.0.0.2:80 --ttl 5s --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader removes", "rm open a --yes --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader drains", "drain open a --force --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader reads the config", "config get open --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader sets the config", "config set open testdata/input/round_robin.json --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader removes the config", "config rm open --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader registers", "register open --addr 10.0.0.2:80 --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"reader registers a command", "register open --addr 10.0.0.2:80 --user bob:builder -- sleep 60", "", exitNotPermitted, "permission denied"},
		{"reader makes a role", "roles resolver secret --apply --user bob:builder", "", exitNotPermitted, "permission denied"},
		{"root makes a role", "roles resolver secret --name secret-reader --grant-to bob --apply --user root:secret", "", 0, "_grpc_config/secret"},
		{"root makes it again", "roles resolver secret --name secret-reader --grant-to bob --apply --user root:secret", "", 0, "secret/"},
		{"root adds what only some may read", "add secret 10.0.0.3:80 --user root:secret", "", 0, "secret/10.0.0.3:80"},
		{"reader gets what it now may", "get secret --user bob:builder", "", 0, "10.0.0.3:80"},
		{"root adds", "add open 10.0.0.2:80 --user root:secret", "", 0, "open/10.0.0.2:80"},
		{"root makes an operator", "roles operator open --grant-to bob --apply --user root:secret", "", 0, "_grpc_config/open"},
		{"operator drains", "drain open a --force --user bob:builder", "", 0, "draining"},
		{"operator sets the config", "config set open testdata/input/round_robin.json --user bob:builder", "", 0, "round_robin"},
	} {
		t.Run(row.name, func(t *testing.T) {
			began := time.Now()
			env := append(strings.Fields(row.env), "ETCDCTL_ENDPOINTS="+server.Endpoint(), "ETCDCTL_DIAL_TIMEOUT=15s")
			s := begin(t, env, strings.Split(row.args, " ")...)
			code, stdout, stderr := s.end(t), s.stdout.String(), s.stderr.String()
			if code != row.code {
				t.Fatalf("exit %d, want %d; stdout %q, stderr %q", code, row.code, stdout, stderr)
			}
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("took %v: what is refused must not be waited for", took)
			}
			if code == 0 {
				wantIn(t, "stdout", stdout, row.want)
				return
			}
			wantIn(t, "stderr", stderr, row.want, server.Endpoint(), "--user")
			if strings.Count(stderr, "\n") != 1 || stdout != "" {
				t.Errorf("stdout %q, stderr %q, want one line of error", stdout, stderr)
			}
		})
	}
	rolesKeepWhatIs(t, server.Endpoint())
	r := begin(t, []string{"ETCDCTL_ENDPOINTS=" + server.Endpoint()}, "roles", "resolver", "x", "--grant-to", "eve", "--apply", "--user", "root:secret")
	if code := r.end(t); code != exitNotFound || !strings.Contains(r.stderr.String(), "no such user") {
		t.Errorf("a role for nobody: exit %d, %s", code, r.stderr.String())
	}
}

// rolesKeepWhatIs: a role loses no right of a range by another one that is applied to it.
func rolesKeepWhatIs(t *testing.T, endpoint string) {
	cfg := rollcall.ClientConfig(endpoint)
	cfg.Username, cfg.Password = "root", "secret"
	root, err := rollcall.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, row := range []struct {
		had   clientv3.PermissionType
		kind  string
		want  clientv3.PermissionType
		tells string
	}{
		{clientv3.PermissionType(clientv3.PermRead), "resolver", clientv3.PermissionType(clientv3.PermRead), ""},
		{clientv3.PermissionType(clientv3.PermWrite), "resolver", clientv3.PermissionType(clientv3.PermReadWrite), "may also write"},
		{clientv3.PermissionType(clientv3.PermReadWrite), "resolver", clientv3.PermissionType(clientv3.PermReadWrite), "may also write"},
		{clientv3.PermissionType(clientv3.PermRead), "registrar", clientv3.PermissionType(clientv3.PermReadWrite), ""},
		{clientv3.PermissionType(clientv3.PermWrite), "registrar", clientv3.PermissionType(clientv3.PermReadWrite), ""},
	} {
		name := fmt.Sprintf("had-%d-for-%s", row.had, row.kind)
		if _, err := root.RoleAdd(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := root.RoleGrantPermission(t.Context(), name, "svc/", "svc0", row.had); err != nil {
			t.Fatal(err)
		}
		s := must(t, endpoint, "roles", row.kind, "svc", "--name", name, "--apply", "--extend", "--user", "root:secret")
		if row.tells == "" != (s.stderr == "") || !strings.Contains(s.stderr, row.tells) {
			t.Errorf("%s: told %q, want %q", name, s.stderr, row.tells)
		}
		role, err := root.RoleGet(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range role.Perm {
			if string(p.Key) == "svc/" && clientv3.PermissionType(p.PermType) != row.want {
				t.Errorf("%s: the role has %v, want %v", name, p.PermType, row.want)
			}
		}
	}
}
