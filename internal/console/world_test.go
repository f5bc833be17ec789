// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"strconv"
	"testing"
	"time"
)

// TestSeenIsBounded: a catalog that nobody reads remembers the latest changes alone.
func TestSeenIsBounded(t *testing.T) {
	c := &catalog{seen: make(map[string]time.Time)}
	now := time.Now()
	for i := range 3 * maxSeen {
		c.seen[strconv.Itoa(i)] = now.Add(time.Duration(i))
	}
	c.forget()
	_, last := c.seen[strconv.Itoa(3*maxSeen-1)]
	if len(c.seen) != maxSeen || !last {
		t.Errorf("%d changes are remembered, want the latest %d", len(c.seen), maxSeen)
	}
}

// TestClientsAreAskedForOnce: however many pages show them.
func TestClientsAreAskedForOnce(t *testing.T) {
	asked := 0
	var l clientList
	for range 10 {
		if got := l.of(func() []Client { asked++; return []Client{{ID: "a"}} }); len(got) != 1 {
			t.Fatalf("there are %d clients", len(got))
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}
