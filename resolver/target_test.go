// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall"
)

// A target names a service or is refused; the service that it names, spelt as a target
// again, is the same.
func FuzzParseTarget(f *testing.F) {
	for _, target := range []string{"etcd:///svc", "etcd:///a/b/", "etcd:svc", "etcd://authority/svc", "etcd:///a%2Fb", "etcd:///%61", "etcd:////a",
		"etcd:///", "etcd:", "etcd:///a?b", "etcd:///a?zone=b&zone=c", "etcd:///a#b", "etcd:///a%3Fb", "etcd:%zz", "etcd:///a%00b", "etcd:a%", "etcd:///é"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.Parse(target)
		if err != nil {
			return
		}
		service, selector, err := ParseTarget(*u)
		if err != nil {
			if !errors.As(err, new(*rollcall.InputError)) || service != "" {
				t.Errorf("%q: %q, %v", target, service, err)
			}
			return
		}
		if strings.Trim(service, "/") == "" {
			t.Errorf("%q names %q", target, service)
		}
		again := url.URL{Scheme: Scheme, Path: "/" + service + "/", RawQuery: selector.String()} // one trailing slash is dropped
		parsed, err := url.Parse(again.String())
		if err != nil {
			t.Fatalf("%q: %v", again.String(), err)
		}
		if got, sel, err := ParseTarget(*parsed); got != service || sel.String() != selector.String() || err != nil {
			t.Errorf("%q names %q, which as a target names %q, %v", target, service, got, err)
		}
	})
}
