// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it begins on 2000-01-01 at midnight, UTC
		time.Sleep(11 * time.Hour)
		now := time.Now()
		today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.Local)
		noon := 12 * time.Hour
		lastNoon := today.Add(noon)
		if lastNoon.After(now) {
			lastNoon = lastNoon.AddDate(0, 0, -1)
		}
		for _, row := range []struct {
			text, before string
			want         time.Time
		}{
			{"30m", "more than 30m0s ago", now.Add(-30 * time.Minute)},
			{"1h30m", "more than 1h30m0s ago", now.Add(-90 * time.Minute)},
			{"12:00", "before 12:00", lastNoon},
			{"12:00:00", "before 12:00:00", lastNoon},
			{"1999-12-31T23:59:00Z", "before 1999-12-31T23:59:00Z", time.Date(1999, 12, 31, 23, 59, 0, 0, time.UTC)},
			{"1999-12-30 08:00", "before 1999-12-30 08:00", time.Date(1999, 12, 30, 8, 0, 0, 0, time.Local)},
		} {
			var s since
			if err := s.Set(row.text); err != nil || !s.at.Equal(row.want) || s.before() != row.before || s.String() != row.text {
				t.Errorf("%s: %v, %q, %v, want %v, %q", row.text, s.at, s.before(), err, row.want, row.before)
			}
		}
		for text, want := range map[string]string{"0s": "more than 0", "-1m": "more than 0", "2000-01-03T00:00:00Z": "future", "soon": "such as 30m", "": "such as 30m", "25:00": "such as 30m"} {
			var s since
			if err := s.Set(text); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want an error with %q", text, err, want)
			}
		}
	})
}
