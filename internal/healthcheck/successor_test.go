// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Status tells since when the checks pass or fail, and when the last run that passed began.
func TestStatusTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := Endpoint{health: hysteresis{fall: 10, rise: 10}, reported: Event{Kind: Waiting}, begun: make(chan struct{})}
		began := time.Now()
		at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
		failed := errors.New("down")
		for i, row := range []struct {
			result        error
			since, passed time.Time
		}{{failed, at(0), time.Time{}}, {failed, at(0), time.Time{}}, {nil, at(2), at(1)}, {nil, at(2), at(2)}, {failed, at(4), at(2)}} {
			if err := e.observe(time.Now().Add(-time.Second), row.result); err != nil {
				t.Fatal(err)
			}
			if s := e.Status(); !s.Since.Equal(row.since) || !s.Passed.Equal(row.passed) {
				t.Errorf("run %d: since %v, passed %v, want %v and %v", i, s.Since, s.Passed, row.since, row.passed)
			}
			time.Sleep(time.Second)
		}
	})
}

// While an endpoint waits, another cause of the same is reported, but not as often as it changes.
func TestAnotherCauseIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		e := Endpoint{health: hysteresis{fall: 3, rise: 2}, begun: make(chan struct{}), opts: Options{Report: func(event Event) {
			got = append(got, event.Cause.Error())
		}}}
		for _, cause := range []string{"refused", "loading", "warming", "refused", "refused", "refused", "loading", "loading"} {
			if err := e.observe(time.Now(), errors.New(cause)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second)
		}
		if want := []string{"refused", "loading"}; !slices.Equal(got, want) {
			t.Errorf("reported %q, want %q", got, want)
		}
	})
}
