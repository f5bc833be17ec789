// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func TestNoSpace(t *testing.T) {
	for _, members := range []int{1, 3} {
		c := New(t, Options{Members: members, Flags: []string{SmallQuota}})
		client := c.Client(t)
		put(t, client, "k", "v")
		for range 2 {
			c.Fill(t)
			if err := tryPut(t, client, "k2"); !errors.Is(err, rpctypes.ErrNoSpace) {
				t.Errorf("put when full: %v, want %v", err, rpctypes.ErrNoSpace)
			}
			wantValue(t, client, "k", "v")
			c.Free(t)
			put(t, client, "k2", "v")
			wantValue(t, client, "k", "v")
		}
	}
}

func TestFillTakesASmallQuota(t *testing.T) {
	r := &record{TB: t}
	c := New(t, Options{})
	r.run(func() { c.Fill(r) })
	if !strings.Contains(r.fatal, "SmallQuota") {
		t.Errorf("failure %q, want one that names SmallQuota", r.fatal)
	}
}
