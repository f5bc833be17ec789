// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const handWritten = `# The clusters of team A.

contexts:

  # behind the VPN
  lab:
    dial-timeout: 7s      # slow
    endpoints:
      - 127.0.0.1:1
      - 127.0.0.1:2

  prod:
    user: "alice"
    cacert: certs/ca.pem              # relative to this file
    endpoints: [https://etcd-1:2379,   https://etcd-2:2379]

current-context:   lab
`

const commented = `contexts:
  a:
    endpoints:
      - a:1  # first
      # the next one is slow
      - b:1  # second
      - d:1
      # - e:1

    user:  x
`

// A file of contexts is the user's: comments, order, spaces and relative names survive, but for what was changed.
func TestContextFileStaysAsItIs(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(handWritten) }
	for _, row := range []struct{ args, before, want string }{
		{"use prod", handWritten, replace("current-context:   lab", "current-context: prod")},
		{"use lab", handWritten, handWritten},
		{"set prod --user bob", handWritten, replace(`"alice"`, "bob")},
		{"set prod --user |", handWritten, replace("    user: \"alice\"\n", "")},
		{"set prod --endpoints https://etcd-1:2379,https://etcd-2:2379", handWritten, handWritten},
		{"set lab --cacert /ca --endpoints 127.0.0.1:1,127.0.0.1:3", handWritten, replace("127.0.0.1:2\n", "127.0.0.1:3\n    cacert: /ca\n")},
		{"set new --endpoints a:1,b:2", handWritten, replace("   https://etcd-2:2379]\n", "   https://etcd-2:2379]\n  new:\n    endpoints:\n      - a:1\n      - b:2\n")},
		{"rename lab test", handWritten, replace("  lab:", "  test:", ":   lab", ": test")},
		{"delete lab", handWritten, handWritten[:strings.Index(handWritten, "  # behind")] + "\n" + handWritten[strings.Index(handWritten, "  prod:"):strings.Index(handWritten, "current-")]},
		{"delete prod", handWritten, handWritten[:strings.Index(handWritten, "  prod:")] + handWritten[strings.Index(handWritten, "\ncurrent-"):]},
		{"use a", "contexts:\n    a:\n        user: x # 4 spaces", "current-context: a\ncontexts:\n    a:\n        user: x # 4 spaces\n"},
		{"set a --user bob", "contexts:\n    a:\n        user: x\n    b:\n        user: x\n", "contexts:\n    a:\n        user: bob\n    b:\n        user: x\n"},
		{"set b --user y", "contexts:\n    a:\n        user: x\n", "contexts:\n    a:\n        user: x\n    b:\n        user: y\n"},
		{"set b --user bob", "contexts: {a: {user: x}}\n", "contexts: {a: {user: x}, b: {user: bob}}\n"},
		{"set a --user bob", "# none yet\n", "# none yet\n\ncontexts:\n  a:\n    user: bob\n"},
		{"set a --user bob", "contexts:\n  a: # later\n", "contexts:\n  a: # later\n    user: bob\n"},
		{"set a --user |", "contexts:\n  a:\n    dial-timeout: 7s\n    user: x\n    # cacert: /old/ca.pem\n  b:\n    user: y\n", "contexts:\n  a:\n    dial-timeout: 7s\n    # cacert: /old/ca.pem\n  b:\n    user: y\n"},
		{"set a --user |", "contexts:\n  a:\n    user: x\n    # cacert: /old/ca.pem\n\n    cert: /c\n    key: /k\n", "contexts:\n  a:\n    # cacert: /old/ca.pem\n\n    cert: /c\n    key: /k\n"},
		{"set a --user |", "contexts:\n  a:\n    user: x\n    # cacert: /old/ca.pem\n  b:\n    user: y\n", "contexts:\n  a: {}\n  # cacert: /old/ca.pem\n  b:\n    user: y\n"},
		{"set a --endpoints a:1,b:1,c:1", commented, strings.Replace(commented, "      - d:1\n      # - e:1\n", "      # - e:1\n      - c:1\n", 1)},
		{"set a --endpoints b:1,d:1", commented, strings.Replace(commented, "      - a:1  # first\n", "", 1)},
		{"set a --endpoints a:1,b:1", commented, strings.Replace(commented, "      - d:1\n", "", 1)},
		{"use a", "---\n# mine\ncontexts:\n  a:\n    user:   x\n...\n", "---\ncurrent-context: a\n# mine\ncontexts:\n  a:\n    user:   x\n...\n"},
		{"set b --user y", "---\ncontexts:\n  a:\n    user:   x\n...\n", "---\ncontexts:\n  a:\n    user:   x\n  b:\n    user: y\n...\n"},
		{"set a --user y", "contexts:\r\n\r\n  a:\r\n    user:   x\r\n    key:   /k\r\n", "contexts:\r\n\r\n  a:\r\n    user: y\r\n    key:   /k\r\n"},
		{"set a --user bob", "", "contexts:\n  a:\n    user: bob\n"},
	} {
		t.Run(row.args, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(row.before), 0o600); err != nil {
				t.Fatal(err)
			}
			args := strings.Fields(row.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "|", "")
			}
			s := begin(t, []string{"ROLLCALL_CONFIG=" + file}, append([]string{"context"}, args...)...)
			if code := s.end(t); code != 0 {
				t.Fatalf("exit %d, stderr %q", code, s.stderr.String())
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What the command cannot write as it was, it says, or refuses to write.
func TestContextFileOfOtherYAML(t *testing.T) {
	dir := t.TempDir()
	set := func(name, text string) (code int, after, stderr string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := begin(t, []string{"ROLLCALL_CONFIG=" + file}, "context", "set", "a", "--user", "y")
		code = s.end(t)
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return code, string(got), s.stderr.String()
	}
	const two = "contexts: {a: {user: x}}\n---\nother: 1\n"
	code, after, stderr := set("two", two)
	if code != exitUsage || after != two || !strings.Contains(stderr, "line 2: another YAML document begins") {
		t.Errorf("two documents: exit %d, %q, the file is %q", code, stderr, after)
	}
	code, after, stderr = set("flow", "contexts: {a: {user: x,\n  key: /k}}\n")
	if code != 0 || after != "contexts: {a: {user: y, key: /k}}\n" || !strings.Contains(stderr, "flow has values over several lines") {
		t.Errorf("a value over two lines: exit %d, %q, the file is %q", code, stderr, after)
	}
}

func TestContextFileBehindLinks(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"config.yaml": "mine/link", "mine/link": "../kept/config.yaml"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.FromSlash(target), filepath.Join(dir, name)); err != nil {
			t.Skip(err) // not every user of Windows may
		}
	}
	for range 2 { // the links lead nowhere at first
		s := begin(t, []string{"ROLLCALL_CONFIG=" + filepath.Join(dir, "config.yaml")}, "context", "set", "a", "--user", "x")
		if code := s.end(t); code != 0 {
			t.Fatalf("exit %d, stderr %q", code, s.stderr.String())
		}
		if info, err := os.Lstat(filepath.Join(dir, "kept", "config.yaml")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("the file that the links name: %v, %v", info, err)
		}
	}
}

// An endpoint that could not be dialled is not kept.
func TestContextOfBadEndpoint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	s := begin(t, []string{"ROLLCALL_CONFIG=" + file}, "context", "set", "a", "--endpoints", "a:1, 10.0.0.1")
	if code := s.end(t); code != exitUsage {
		t.Errorf("exit %d, want %d", code, exitUsage)
	}
	wantIn(t, "stderr", s.stderr.String(), `--endpoints: "10.0.0.1" is not an endpoint: missing port in address`)
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file was written (%v)", err)
	}
	for _, endpoints := range []string{"a:1,", ""} { // as on a command line; "" takes the setting out
		if code := begin(t, []string{"ROLLCALL_CONFIG=" + file}, "context", "set", "a", "--endpoints", endpoints).end(t); code != 0 {
			t.Errorf("%q: exit %d", endpoints, code)
		}
	}
}
