// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Status tells since when the checks pass or fail, and when they passed last.
func TestStatusTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := Endpoint{health: hysteresis{fall: 10, rise: 10}, reported: Waiting, begun: make(chan struct{})}
		began := time.Now()
		at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
		failed := errors.New("down")
		for i, row := range []struct {
			result        error
			since, passed time.Time
		}{{failed, at(0), time.Time{}}, {failed, at(0), time.Time{}}, {nil, at(2), at(2)}, {nil, at(2), at(3)}, {failed, at(4), at(3)}} {
			if err := e.observe(row.result); err != nil {
				t.Fatal(err)
			}
			if s := e.Status(); !s.Since.Equal(row.since) || !s.Passed.Equal(row.passed) {
				t.Errorf("run %d: since %v, passed %v, want %v and %v", i, s.Since, s.Passed, row.since, row.passed)
			}
			time.Sleep(time.Second)
		}
	})
}
