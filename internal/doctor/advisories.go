// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"strconv"
	"strings"
)

// AdvisoriesAsOf is when the table of advisories was compared with etcd's changelogs (3.4.45, 3.5.33, 3.6.14,
// 3.7.1) and security advisories. What has become known since is not in it.
const AdvisoriesAsOf = "2026-08-20"

// lastUnmaintained is of the last minor version that etcd's project no longer maintains: 3.4.45 of 2026-06-01 was
// the last of its patches.
var lastUnmaintained = version{3, 4, 45}

// advisory is a known fault of etcd servers. Minor versions that fixed does not name are not affected, or
// it is not certain that they are.
type advisory struct {
	id       string // a CVE, a GitHub advisory, or an issue or pull request of etcd-io/etcd
	severity Severity
	what     string
	fixed    string // the first good version of each affected minor version
	from     string // the first affected version of each, where that is not the first of all
}

var advisories = []advisory{
	{"etcd-io/etcd#13766", Error, "members may lose committed writes when they are killed under load, and differ from then on", "3.5.3", ""},
	{"etcd-io/etcd#14733", Error, "members may differ after a crash while defragmenting", "3.5.6", ""},
	{"etcd-io/etcd#14648", Error, "members may differ after one was added while authentication is on", "3.4.22 3.5.6", "3.4.20 3.5.5"},
	{"etcd-io/etcd#20650", Warning, "data may be corrupted when a snapshot is applied while defragmenting", "3.4.38 3.5.23 3.6.5", ""},
	{"etcd-io/etcd#15247", Warning, "a leader with a slow disk or CPU may revoke leases that are kept alive: all servers vanish at once", "3.4.31 3.5.13", ""},
	{"etcd-io/etcd#20547", Warning, "a keepalive may succeed for a lease that has been revoked: a server takes itself for registered", "3.4.38 3.5.23 3.6.5", ""},
	{"etcd-io/etcd#17610", Warning, "watches may lose events after compaction", "3.4.31 3.5.13", ""},
	{"etcd-io/etcd#19249", Warning, "a watch may miss a deletion at the compacted revision: a server that has gone stays listed", "3.4.36 3.5.18", ""},
	{"etcd-io/etcd#17865", Warning, "the revision may go back after a crash while compacting", "3.4.32 3.5.14", ""},
	{"etcd-io/etcd#21417", Warning, "a member that was paused may answer with old data", "3.4.42 3.5.28 3.6.9", ""},
	{"CVE-2021-28235", Warning, "passwords can be read over the debug interface", "3.4.25 3.5.8", ""},
	{"CVE-2023-32082", Warning, "users can list keys of a lease that they may not read", "3.4.26 3.5.9", ""},
	{"CVE-2026-33413", Warning, "several calls are open to users without the rights for them", "3.4.42 3.5.28 3.6.9", ""},
	{"CVE-2026-33343", Warning, "transactions within transactions are not checked: a user with any right may write any key", "3.4.42 3.5.28 3.6.9", ""},
	{"CVE-2026-44283", Warning, "puts in transactions let users read keys, or attach leases, without the right", "3.4.44 3.5.30 3.6.11", ""},
	{"GHSA-3wh4-j44w-pg92", Warning, "revoked client certificates are accepted if --listen-client-http-urls is set", "3.5.32 3.6.13", ""},
	{"GHSA-xg4h-6gfc-h4m8", Warning, "users who may read one key can watch all keys after it", "3.5.33 3.6.14 3.7.1", ""},
	{"GHSA-6vch-q96h-7gc3", Warning, "TLS handshakes that never end can exhaust a member", "3.5.33 3.6.14 3.7.1", ""},
}

// version is a version of etcd without what follows its numbers.
type version [3]int

func parseVersion(text string) (v version, ok bool) {
	text, _, _ = strings.Cut(text, "-")
	text, _, _ = strings.Cut(text, "+")
	parts := strings.Split(text, ".")
	if len(parts) != len(v) {
		return v, false
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

func (v version) minor() string { return fmt.Sprintf("%d.%d", v[0], v[1]) }

func (v version) below(o version) bool {
	for i := range v {
		if v[i] != o[i] {
			return v[i] < o[i]
		}
	}
	return false
}

// affects reports whether a version has the fault, and the version that mends it.
func (a advisory) affects(v version) (fixed version, affected bool) {
	for _, text := range strings.Fields(a.from) {
		if from, _ := parseVersion(text); from.minor() == v.minor() && v.below(from) {
			return version{}, false
		}
	}
	for _, text := range strings.Fields(a.fixed) {
		if fixed, _ = parseVersion(text); fixed.minor() == v.minor() && v.below(fixed) {
			return fixed, true
		}
	}
	return version{}, false
}
