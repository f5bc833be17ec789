// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestMvSaysHowFarItCame: a mv that etcd refuses half-way says what is done, and the command that it names does the rest.
func TestMvSaysHowFarItCame(t *testing.T) {
	endpoint := etcdWithUsers(t, "bob")
	root := rootClient(t, endpoint)
	for i := range 130 {
		put1(t, root, fmt.Sprintf("many/%d", i), `{"Addr":"10.0.0.1:80"}`)
	}
	for _, role := range []string{"viewer many", "operator new"} {
		must(t, endpoint, strings.Fields("roles "+role+" --grant-to bob --apply --user root:secret")...)
	}
	r := rollcallAt(t, endpoint, asUser("mv many new --yes")...)
	said := regexp.MustCompile(`so far 128 of 130 keys are copied, and 0 of the old ones deleted; to go on: rollcall (mv many new --yes);`).FindStringSubmatch(r.stderr)
	if r.code != exitNotPermitted || said == nil {
		t.Fatalf("exit %d, stderr %q", r.code, r.stderr)
	}
	must(t, endpoint, strings.Fields("roles operator many --grant-to bob --apply --user root:secret")...)
	must(t, endpoint, asUser(said[1])...)
	for prefix, want := range map[string]int64{"many/": 0, "new/": 130} {
		resp, err := root.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count != want {
			t.Errorf("%d keys under %q, want %d; %v", resp.Count, prefix, want, err)
		}
	}
}
