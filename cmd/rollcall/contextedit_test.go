// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
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
