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
			mayOnly(t, endpoint, row.commands, row.not)
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

// TestRolesDoNotAddUp: a role that permits more is added to only where that is said, or where it is one user's own;
// what is applied again succeeds.
func TestRolesDoNotAddUp(t *testing.T) {
	t.Parallel()
	endpoint := etcdWithUsers(t, "alice", "bob")
	root := rootClient(t, endpoint)
	keysOf := func(name string) (keys []string) {
		t.Helper()
		got, err := root.RoleGet(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got.Perm {
			keys = append(keys, p.PermType.String()+" "+string(p.Key))
		}
		return keys
	}
	first := []string{"READWRITE _grpc_config/orders", "READWRITE orders/"}
	both := []string{"READWRITE _grpc_config/orders", "READWRITE _grpc_config/users", "READWRITE orders/", "READWRITE users/"}
	for _, row := range []struct {
		args string
		want string // "" for success without a word
		code int
		name string   // of a role
		keys []string // of it, afterwards; nil: any
	}{
		{"operator orders", "", 0, "rollcall-operator", first},
		{"operator orders", "", 0, "rollcall-operator", first},
		{"operator users", `permits more: to read and write key "_grpc_config/orders", to read and write keys "orders/" to "orders0"; nothing was changed`, exitOther, "rollcall-operator", first},
		{"operator users --grant-to bob --name rollcall-operator", "give another --name, or --extend to add to it", exitOther, "rollcall-operator", first},
		{"viewer orders --name rollcall-operator", `permits more: to write key "_grpc_config/orders", to write keys "orders/" to "orders0"`, exitOther, "rollcall-operator", first},
		{"operator users --name other", "", 0, "other", []string{"READWRITE _grpc_config/users", "READWRITE users/"}},
		{"operator users orders", "", 0, "rollcall-operator", both},
		{"operator users orders", "", 0, "rollcall-operator", both},
		{"operator users", "permits more", exitOther, "rollcall-operator", both},
		{"operator users --extend", `may also read and write keys "orders/" to "orders0", as before`, 0, "rollcall-operator", both},
		{"operator orders --grant-to alice", "", 0, "rollcall-operator-alice", first},
		{"operator users --grant-to alice", "as before", 0, "rollcall-operator-alice", both},
		{"operator team-a/users --name team", "", 0, "team", nil},
		{"operator --prefix team-a/ --name team", "", 0, "team", nil},
		{"operator team-a/users --name team", `to read and write keys "team-a/" to "team-a0"`, exitOther, "team", nil},
		{"viewer --name all", "", 0, "all", nil},
		{"viewer --name all", "", 0, "all", nil},
		{"viewer orders --name all", `permits more: to read all keys from "\x00" on`, exitOther, "all", []string{"READ \x00"}},
	} {
		r := rollcallAt(t, endpoint, append(strings.Fields("roles "+row.args), "--apply", "--user", "root:secret")...)
		if r.code != row.code || row.want == "" && r.stderr != "" {
			t.Errorf("%s: exit %d, want %d; stderr %q", row.args, r.code, row.code, r.stderr)
		}
		wantIn(t, row.args, r.stderr, row.want)
		if diff := cmp.Diff(row.keys, keysOf(row.name)); row.keys != nil && diff != "" {
			t.Errorf("%s: role %s differs (-want +got):\n%s", row.args, row.name, diff)
		}
	}
	bob, err := root.UserGet(t.Context(), "bob")
	if err != nil || len(bob.Roles) > 0 {
		t.Errorf("bob has the roles %q (%v), want none: what was refused granted nothing", bob.Roles, err)
	}
}

// TestPermissionIncludes compares what a permission includes with the keys that it is on.
func TestPermissionIncludes(t *testing.T) {
	keys := []string{"a", "a/", "a/b", "a/b/c", "a0", "b"}
	ends := append([]string{"", "\x00"}, keys...)
	on := func(key, start, end string) bool {
		switch end {
		case "":
			return key == start
		case "\x00":
			return key >= start
		}
		return key >= start && key < end
	}
	for _, start := range keys {
		for _, end := range ends {
			p := permission{Key: start, RangeEnd: end}
			for _, key := range keys {
				for _, rangeEnd := range ends {
					if end > "\x00" && end <= start || rangeEnd > "\x00" && rangeEnd <= key {
						continue // no range
					}
					want := true
					for _, probe := range append([]string{"a\x00", "a/\x00", "a/b\x00", "a/b/c\x00", "a0\x00", "b\x00", "z"}, keys...) {
						want = want && (!on(probe, key, rangeEnd) || on(probe, start, end))
					}
					if got := p.includes(key, rangeEnd); got != want {
						t.Errorf("%q to %q includes %q to %q: %v, want %v", start, end, key, rangeEnd, got, want)
					}
				}
			}
		}
	}
}
