// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestImportLeavesNoLease: what an import that fails has granted does not stay, unless a key is under it.
func TestImportLeavesNoLease(t *testing.T) {
	endpoint := etcdWithUsers(t, "bob")
	must(t, endpoint, strings.Fields("roles operator shop --grant-to bob --apply --user root:secret")...)
	must(t, endpoint, strings.Fields("roles viewer other --grant-to bob --apply --user root:secret")...)
	root := rootClient(t, endpoint)
	service := func(name, id string) string {
		return fmt.Sprintf(`{"service":%q,"instances":[{"id":%q,"addr":"10.0.0.5:80","leased":true}]}`, name, id)
	}
	for _, row := range []struct {
		name, services string
		leases         int
	}{
		{"nothing is written", service("other", "a"), 0},
		{"one service is written", service("shop", "new") + "," + service("other", "a"), 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := leaseCount(t, root)
			s := beginWith(t, `{"services":[`+row.services+`]}`, []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=10s"},
				asUser("import -f - --ttl 600s")...)
			if code := s.end(t); code != exitNotPermitted {
				t.Errorf("exit %d, stderr %q", code, s.stderr.String())
			}
			if got := leaseCount(t, root) - before; got != row.leases {
				t.Errorf("%d leases were left, want %d", got, row.leases)
			}
		})
	}
}
