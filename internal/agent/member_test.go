// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

// Once the network is back, an endpoint has to fail as often as ever before it is taken out.
func TestGraceAfterTheNetwork(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	failing := func(addr string, since int64) probe {
		return probe{addr: addr, in: true, failing: true, since: at(since), passed: at(10)}
	}
	passing := func(addr string, passed int64) probe {
		return probe{addr: addr, in: true, since: at(1), passed: at(passed)}
	}
	a := failing("a", 11)
	m := &member{service: Service{Settings: Settings{Fall: 3}}}
	for i, row := range []struct {
		all  []probe
		want bool
	}{
		{[]probe{a, failing("b", 12), failing("c", 13)}, true}, // all fail
		{[]probe{a, failing("b", 12), failing("c", 13)}, true},
		{[]probe{a, passing("b", 20), failing("c", 13)}, true}, // the network is back
		{[]probe{a, passing("b", 21), passing("c", 21)}, true},
		{[]probe{a, passing("b", 22), passing("c", 22)}, false}, // the third failure since
	} {
		if got := m.failsOpen(a, row.all); got != row.want {
			t.Errorf("failure %d: fails open %v, want %v", i, got, row.want)
		}
	}
	m.grace = 2
	if later := failing("a", 30); m.failsOpen(later, []probe{later, passing("b", 31), passing("c", 31)}) {
		t.Error("a later row of failures does not count")
	}
}
