// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/rollcall-grpc/rollcall/xds"
)

// grpc-go's own client finds servers by names of all forms.
func TestNames(t *testing.T) {
	l := newLab(t, xds.Options{})
	l.start(t, "foo/bar/svc/a", "null")
	l.start(t, "foo/bar/svc/b", `{"zone":"eu-1"}`)
	for target, want := range map[string][]string{
		"xds:///foo/bar/svc":                           {"foo/bar/svc/a", "foo/bar/svc/b"},
		"xds:///foo/bar/svc/":                          {"foo/bar/svc/a", "foo/bar/svc/b"},
		"xds:///foo/bar/svc%3Fzone=eu-1":               {"foo/bar/svc/b"},
		"xds://test-authority/foo/bar/svc":             {"foo/bar/svc/a", "foo/bar/svc/b"},
		"xds://test-authority/foo/bar/svc%3Fzone=eu-1": {"foo/bar/svc/b"},
	} {
		if got := slices.Sorted(maps.Keys(calls(t, l.dial(t, target, ""), 20))); !slices.Equal(got, want) {
			t.Errorf("%s calls %v, want %v", target, got, want)
		}
	}
}
