// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall"
)

func TestHostPort(t *testing.T) {
	for addr, ok := range map[string]bool{
		"10.0.0.7:50051":                  true,
		"127.0.0.1:1":                     true,
		"host:65535":                      true,
		"host.example.com.:80":            true,
		"my_host-1:80":                    true,
		"[2001:db8::1]:80":                true,
		"[::1]:80":                        true,
		"":                                false,
		"1.2.3.4":                         false,
		"host":                            false,
		"host:":                           false,
		":80":                             false,
		"host:0":                          false,
		"host:65536":                      false,
		"host:http":                       false,
		"host:+80":                        false,
		"unix:80":                         false,
		"unix:/run/x.sock":                false,
		"unix:///run/x.sock":              false,
		"UNIX:80":                         false,
		"unix-abstract:80":                false,
		"http://host:80":                  false,
		"user@host:80":                    false,
		"host:80/path":                    false,
		"ho st:80":                        false,
		"host..name:80":                   false,
		"0.0.0.0:80":                      false,
		"[::]:80":                         false,
		"169.254.169.254:80":              false,
		"[fe80::1]:80":                    false,
		"[fe80::1%eth0]:80":               false,
		"224.0.0.1:80":                    false,
		"2001:db8::1:80":                  false,
		"h\x00st:80":                      false,
		"hôte:80":                         false,
		"a.very-long" + longLabel + ":80": false,
	} {
		err := rollcall.HostPort(addr)
		var input *rollcall.InputError
		if ok && err != nil || !ok && !errors.As(err, &input) {
			t.Errorf("%q: got %v, want it taken: %t", addr, err, ok)
		}
	}
}

const longLabel = "labelthatgoesonandonandonandonandonandonandonandonandonandonandonandonandon"

func TestParseService(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "a/": "a", "foo/bar": "foo/bar", "/a": "/a", "a//": "a/", "": "", "/": "", "//": "", "///": "",
	} {
		got, err := rollcall.ParseService(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestSplitKey(t *testing.T) {
	for key, want := range map[string][2]string{
		"a/b": {"a", "b"}, "a/b/c": {"a/b", "c"}, "a": {"", "a"}, "/a": {"", "a"}, "a/": {"a", ""}, "": {"", ""},
	} {
		service, id := rollcall.SplitKey(key)
		if got := [2]string{service, id}; got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}

func TestAllowCIDR(t *testing.T) {
	policy := rollcall.AllowCIDR(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("169.254.0.0/16"))
	for _, addr := range []string{"10.1.2.3:80", "[2001:db8::1]:80", "[::ffff:10.1.2.3]:80"} {
		if err := policy.Check(addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for addr, part := range map[string]string{
		"11.1.2.3:80":        "not in [10.0.0.0/8",
		"[2001:db9::1]:80":   "not in",
		"127.0.0.1:80":       "not in",
		"host:80":            "not host names",
		"10.1.2.3":           "host:port",
		"unix:/tmp/x":        "socket",
		"169.254.169.254:80": "link-local",
	} {
		err := policy.Check(addr)
		if !errors.As(err, new(*rollcall.InputError)) || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v, want an InputError with %q", addr, err, part)
		}
	}
	if err := rollcall.AllowCIDR(netip.MustParsePrefix("::ffff:10.0.0.0/104")).Check("10.0.0.1:80"); err != nil {
		t.Error(err)
	}
	if err := rollcall.AllowCIDR().Check("10.0.0.1:80"); err == nil {
		t.Error("an empty list allows an address")
	}
}
