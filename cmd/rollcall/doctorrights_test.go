// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// permitOf has doctor look at the service shop, and returns the command that it prints for rights that are missing.
func permitOf(t *testing.T, flags ...string) []string {
	t.Helper()
	r := rollcallAt(t, "127.0.0.1:1", append(flags, "doctor", "shop", "-o", "json", "--no-dial")...)
	var d diagnosis
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
		t.Fatal(err, r.stdout, r.stderr)
	}
	f, ok := ofID(d, "rights-missing")[""]
	if !ok || len(f.Commands) != 1 {
		t.Fatalf("%q: findings %+v, want rights-missing with a command", flags, d.Findings)
	}
	return f.Commands[0]
}

// runPermit runs the command with a file for each placeholder of a flag.
func runPermit(t *testing.T, permit []string, files map[string]string) {
	t.Helper()
	args := slices.Clone(permit[1:])
	for i, word := range args {
		if word == "FILE" {
			args[i] = files[args[i-1]]
		}
	}
	must(t, "127.0.0.1:1", args...)
}

// The command that grants what is missing is run by root, who has a password of his own.
func TestDoctorPermitsByPassword(t *testing.T) {
	t.Parallel()
	endpoint := etcdWithUsers(t, "alice")
	dir := t.TempDir()
	alice, root := filepath.Join(dir, "alice.pw"), filepath.Join(dir, "root.pw")
	for name, password := range map[string]string{alice: "pw", root: "secret"} {
		if err := os.WriteFile(name, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	connection := []string{"--endpoints", endpoint, "--insecure-transport=true"}
	want := slices.Concat([]string{"rollcall"}, connection, []string{"roles", "viewer", "shop", "--grant-to", "alice", "--apply", "--user", "root"})
	for _, flags := range [][]string{{"--user", "alice:pw"}, {"--user", "alice", "--password", "pw"}} { // then root is asked for his
		if diff := cmp.Diff(want, permitOf(t, slices.Concat(connection, flags)...)); diff != "" {
			t.Errorf("%q: the command differs (-want +got):\n%s", flags, diff)
		}
	}
	flags := append(connection, "--user", "alice", "--password-file", alice)
	permit := permitOf(t, flags...)
	if diff := cmp.Diff(append(want, "--password-file", "FILE"), permit); diff != "" {
		t.Errorf("the command differs (-want +got):\n%s", diff)
	}
	runPermit(t, permit, map[string]string{"--password-file": root})
	must(t, "127.0.0.1:1", append(flags, "get", "shop")...)
}

// Where etcd takes the user from a certificate, root has a certificate of his own, too.
func TestDoctorPermitsByCertificate(t *testing.T) {
	t.Parallel()
	ca := etcdtest.NewCA(t)
	etcd := etcdtest.New(t, etcdtest.Options{TLS: ca})
	auth := etcd.EnableAuth(t)
	auth.AddUser("alice", "pw")
	put1(t, auth.Client(t, "root"), "shop/a", `{"Addr":"10.0.0.1:80"}`)
	alice, root := ca.Issue("alice", 24*time.Hour), ca.Issue("root", 24*time.Hour)
	connection := []string{"--endpoints", etcd.Endpoints()[0], "--cacert", ca.File()}
	flags := append(connection, "--cert", alice.CertFile, "--key", alice.KeyFile)
	permit := permitOf(t, flags...)
	want := slices.Concat([]string{"rollcall"}, connection,
		[]string{"roles", "viewer", "shop", "--grant-to", "alice", "--apply", "--user", "root", "--cert", "FILE", "--key", "FILE"})
	if diff := cmp.Diff(want, permit); diff != "" {
		t.Errorf("the command differs (-want +got):\n%s", diff)
	}
	runPermit(t, append(permit, "--password", "root's password"), map[string]string{"--cert": root.CertFile, "--key": root.KeyFile})
	must(t, "127.0.0.1:1", append(flags, "get", "shop")...)
}
