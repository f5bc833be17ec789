// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A mv that etcd refuses has moved nothing, however many keys there are.
func TestMvIsRefusedWhole(t *testing.T) {
	endpoint := etcdWithUsers(t, "bob")
	root := rootClient(t, endpoint)
	for i := range 130 {
		put1(t, root, fmt.Sprintf("many/%d", i), `{"Addr":"10.0.0.1:80"}`)
	}
	holds := func(prefix string, want int64) {
		t.Helper()
		resp, err := root.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count != want {
			t.Errorf("%d keys under %q, want %d; %v", resp.Count, prefix, want, err)
		}
	}
	for _, role := range []string{"viewer many", "operator new"} {
		must(t, endpoint, strings.Fields("roles "+role+" --grant-to bob --apply --user root:secret")...)
	}
	r := rollcallAt(t, endpoint, asUser("mv many new --yes")...)
	if r.code != exitNotPermitted || !strings.Contains(r.stderr, "nothing was written") || !strings.Contains(r.stderr, "rollcall roles operator many") {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
	holds("many/", 130)
	holds("new/", 0)
	must(t, endpoint, strings.Fields("roles operator many --grant-to bob --apply --user root:secret")...)
	must(t, endpoint, asUser("mv many new --yes")...)
	holds("many/", 0)
	holds("new/", 130)
}
