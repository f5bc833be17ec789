// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"strings"
	"testing"
)

// TestNamesThatAreNotText: JSON has the bytes of services and keys that are not UTF-8.
func TestNamesThatAreNotText(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const one, other = "names/\xff", "names/\xfe"
	put1(t, client, one+"/a", `{"Addr":"10.0.0.1:80"}`)
	in64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, row := range []struct {
		stdin, args string
		want        []string
	}{
		{"", "wait " + one, []string{`"serviceBase64": "` + in64(one)}},
		{"", "get " + one, []string{`"serviceBase64": "` + in64(one)}},
		{"", "drain --force " + one + " a", []string{`"serviceBase64": "` + in64(one)}},
		{"", "mv --yes " + one + " " + other, []string{`"serviceBase64": "` + in64(other), `"fromBase64": "` + in64(one), `"keysBase64": [` + "\n    \"" + in64(other+"/a")}},
		{`{"services":[{"serviceBase64":"` + in64(one) + `","instances":[{"id":"b","addr":"10.0.0.2:80"}]}]}`, "import -f -", []string{`"serviceBase64": "` + in64(one)}},
		{"", "rm --all --yes " + one, []string{`"keysBase64": [` + "\n    \"" + in64(one+"/b")}},
	} {
		s := beginWith(t, row.stdin, []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=10s"}, append(strings.Fields(row.args), "-o", "json")...)
		if code := s.end(t); code != 0 {
			t.Errorf("%q: exit %d, stderr %q", row.args, code, s.stderr.String())
		}
		wantIn(t, row.args, s.stdout.String(), row.want...)
	}
}
