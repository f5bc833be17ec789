// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// TestPermissionsOfPrefixes: of each kind of role that takes services.
func TestPermissionsOfPrefixes(t *testing.T) {
	const keys, configs = "team-a/ team-a0", "_grpc_config/team-a/ _grpc_config/team-a0"
	for _, row := range []struct {
		kind string
		want []string
	}{
		{"registrar", []string{"readwrite " + keys}},
		{"resolver", []string{"read " + keys, "read " + configs}},
		{"viewer", []string{"read " + keys, "read " + configs}},
		{"operator", []string{"readwrite " + keys, "readwrite " + configs}},
		{"bridge", []string{"read " + keys, "read " + configs}},
		{"console", []string{"read \x00 \x00", "readwrite " + keys, "readwrite " + configs}},
	} {
		r, err := rolesFlags{prefix: true}.role(row.kind, []string{"team-a/"})
		if err != nil {
			t.Errorf("%s: %v", row.kind, err)
		}
		var got []string
		for _, p := range r.Permissions {
			got = append(got, strings.Join([]string{p.Access, p.Key, p.RangeEnd}, " "))
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: permissions differ (-want +got):\n%s", row.kind, diff)
		}
	}
}

// etcdOfTeams is an etcd with users that has services of two teams, of which one's name begins with that of the other.
func etcdOfTeams(t *testing.T, users ...string) (endpoint string, root *clientv3.Client) {
	t.Helper()
	endpoint = etcdWithUsers(t, users...)
	root = rootClient(t, endpoint)
	for _, service := range []string{"team-a/users", "team-ab/users"} {
		put1(t, root, service+"/a", `{"Addr":"10.0.0.1:80"}`)
		put1(t, root, service+"/b", `{"Addr":"10.0.0.9:80"}`)
		put1(t, root, rollcall.ConfigPrefix+service, `{"loadBalancingConfig":[{"round_robin":{}}]}`)
	}
	return endpoint, root
}

// TestRolesOfPrefixesAreEnough: who has a role for a prefix may do what it is for with all services under it, and
// with no others.
func TestRolesOfPrefixesAreEnough(t *testing.T) {
	look := []string{"ls team-a/", "get team-a/users", "history team-a/users", "resolve team-a/users", "config get team-a/users", "export team-a/users"}
	for _, row := range []struct {
		kind     string
		commands []string // none of them may be refused anything
		not      []string // what the role must not permit
	}{
		{"viewer", look, []string{"ls", "ls team-a", "get team-ab/users", "config get team-ab/users", "drain team-a/users a --force"}},
		{"bridge", look, []string{"get team-ab/users", "add team-a/users 10.0.0.2:80"}},
		{"resolver", []string{"resolve team-a/users"}, []string{"resolve team-ab/users", "add team-a/users 10.0.0.2:80"}},
		{"registrar", []string{"register team-a/new --addr 10.0.0.4:80 -- sleep 1"},
			[]string{"config get team-a/users", "register team-ab/users --addr 10.0.0.4:80 -- sleep 1"}},
		{"operator", append([]string{"add team-a/new 10.0.0.2:80 --ttl 60s", "drain team-a/users a --force", "undrain team-a/users a", "weight team-a/users a 3",
			"config set team-a/new testdata/input/round_robin.json", "config rm team-a/new", "mv team-a/users team-a/people --yes", "mv team-a/people team-a/users --yes"}, look...),
			[]string{"ls", "add team-ab/users 10.0.0.2:80", "config set team-ab/users testdata/input/round_robin.json", "config set team-a testdata/input/round_robin.json"}},
		{"console", append([]string{"ls", "config set team-a/new testdata/input/round_robin.json"}, look...), []string{"add team-ab/users 10.0.0.2:80"}},
	} {
		t.Run(row.kind, func(t *testing.T) {
			t.Parallel()
			endpoint, _ := etcdOfTeams(t, "bob")
			must(t, endpoint, strings.Fields("roles "+row.kind+" --prefix team-a/ --grant-to bob --apply --user root:secret")...)
			for _, command := range row.commands {
				r := rollcallAt(t, endpoint, asUser(command)...)
				if r.code != 0 || strings.Contains(r.stderr, "denied") {
					t.Errorf("%s: exit %d, stderr %q", command, r.code, r.stderr)
				}
			}
			for _, command := range row.not {
				if r := rollcallAt(t, endpoint, asUser(command)...); r.code != exitNotPermitted {
					t.Errorf("%s: exit %d, want %d; stderr %q", command, r.code, exitNotPermitted, r.stderr)
				}
			}
		})
	}
}

// TestPrefixRoleFollows: a Directory whose user may read no more than a prefix follows endpoints and service configs
// under it, those of services that come later included.
func TestPrefixRoleFollows(t *testing.T) {
	t.Parallel()
	endpoint, root := etcdOfTeams(t, "bob")
	must(t, endpoint, strings.Fields("roles resolver --prefix team-a/ --grant-to bob --apply --user root:secret")...)
	cfg := rollcall.ClientConfig(endpoint)
	cfg.Username, cfg.Password = "bob", "pw"
	client, err := rollcall.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, service := range []string{"team-a/users", "team-a/later"} {
		endpoints, config, err := dir.SubscribeServiceFunc(service, func(*rollcall.Snapshot, error) {}, func(*rollcall.ServiceConfig, error) {})
		if err != nil {
			t.Fatal(err)
		}
		defer endpoints.Close()
		defer config.Close()
		for _, text := range []string{`{"methodConfig":[]}`, `{"loadBalancingConfig":[]}`} {
			put1(t, root, service+"/c", `{"Addr":"10.0.0.3:80"}`)
			put1(t, root, rollcall.ConfigPrefix+service, text)
			eventually(t, service+" has "+text, func() bool {
				snap, latest := endpoints.Latest(), config.Latest()
				return snap != nil && snap.Len() > 0 && latest != nil && string(latest.JSON) == text
			})
		}
	}
}
