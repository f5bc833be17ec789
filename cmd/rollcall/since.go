// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// since is the value of a flag: how long ago, or a time. It implements pflag.Value.
type since struct {
	at   time.Time     // zero: not given
	ago  time.Duration // 0: a time was given
	text string
}

// times are the layouts of a time, in the local zone unless it has one of its own.
var times = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.TimeOnly, "15:04"}

// Set implements pflag.Value.
func (s *since) Set(text string) error {
	now := time.Now()
	if ago, err := time.ParseDuration(text); err == nil {
		if ago <= 0 {
			return fmt.Errorf("%q must be more than 0", text)
		}
		*s = since{now.Add(-ago), ago, text}
		return nil
	}
	for _, layout := range times {
		at, err := time.ParseInLocation(layout, text, time.Local)
		if err != nil {
			continue
		}
		if at.Year() == 0 { // the last time that it was so late
			if at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, time.Local); at.After(now) {
				at = at.AddDate(0, 0, -1)
			}
		}
		if at.After(now) {
			return fmt.Errorf("%q is in the future", text)
		}
		*s = since{at, 0, text}
		return nil
	}
	return fmt.Errorf("%q is neither how long ago, such as 30m, nor a time, such as 10:42 or 2006-01-02T10:42:00Z", text)
}

func (s *since) String() string { return s.text }

// Type implements pflag.Value.
func (*since) Type() string { return "duration|time" }

// before is what happened earlier.
func (s *since) before() string {
	if s.ago > 0 {
		return fmt.Sprintf("more than %v ago", s.ago)
	}
	return "before " + s.text
}
