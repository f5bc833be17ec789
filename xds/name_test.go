// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/xds"
)

func TestParseName(t *testing.T) {
	const federated = "xdstp://main/envoy.config.listener.v3.Listener/"
	for _, row := range []struct{ name, service, selector string }{
		{"foo/bar", "foo/bar", ""},
		{"/foo/", "foo", ""},
		{"foo;bar", "foo;bar", ""},
		{"foo;zone=a", "foo", "zone=a"},
		{"foo;version=v2&zone=a", "foo", "version=v2&zone=a"},
		{"foo;version=a%3Bb", "foo", "version=a%3Bb"},
		{"foo?zone=a", "foo", "zone=a"},
		{"foo%3Fzone=a", "foo", "zone=a"},
		{"foo;bar%3fzone=a", "foo;bar", "zone=a"},
		{federated + "foo", "foo", ""},
		{federated + "foo;zone=a", "foo", "zone=a"},
		{federated + "foo?zone=a", "foo", "zone=a"},
	} {
		service, selector, err := xds.ParseName(row.name)
		if err != nil || service != row.service || selector.String() != row.selector {
			t.Errorf("%q: service %q, selector %q, %v; want %q and %q", row.name, service, selector, err, row.service, row.selector)
		}
	}
	for name, want := range map[string]string{
		"foo;zone=a?version=v2":                          "two selectors; use one",
		"foo;zone=a%3Fversion=v2":                        "two selectors; use one",
		"foo?zone=a;version=v2":                          "two selectors; use one",
		"foo%3fzone=a?version=v2":                        "two selectors; use one",
		"foo;zone=a;version=v2":                          "two selectors; use one",
		federated + "foo;zone=a?version=v2":              "two selectors; use one",
		federated + "foo%3Fzone=a?version=v2":            "two selectors; use one",
		"foo;color=red":                                  `unknown field "color"`,
		";zone=a":                                        "names no service",
		"foo\xff":                                        "not UTF-8",
		"grpc/server?xds.resource.listening_address=:80": "a server's Listener",
	} {
		var input *rollcall.InputError
		if _, _, err := xds.ParseName(name); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an InputError with %q", name, err, want)
		}
	}
}
