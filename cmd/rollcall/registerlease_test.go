// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// A sidecar that was killed has left its key under a lease: the next one takes it over, on every etcd.
func TestRegisterOverALease(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, _ []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary})
		client := etcd.Client(t)
		put1(t, client, "shop/a", endpointAt("10.0.0.1:80", "null"), kept(t, client, 60))
		s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]}, "register", "shop", "--id", "a", "--addr", "10.0.0.2:80", "--", "true")
		if code := s.end(t); code != 0 || strings.Contains(s.stderr.String(), "without a lease") {
			t.Errorf("exit %d, %q", code, s.stderr.String())
		}
	})
}
