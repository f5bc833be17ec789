// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// at is a time of one day: hours, minutes and seconds.
func at(clock string) time.Time {
	t, err := time.Parse(time.DateTime, "2026-03-04 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

func came(revision int64, started string) rollcall.HistoryEvent {
	inst := &rollcall.Instance{Metadata: fmt.Appendf(nil, `{"started":"2026-03-04T%sZ"}`, started)}
	if started == "" {
		inst.Metadata = nil
	}
	return rollcall.HistoryEvent{Change: rollcall.Change{New: inst}, Revision: revision, Type: rollcall.EventCame}
}

func gone(revision int64) rollcall.HistoryEvent {
	return rollcall.HistoryEvent{Revision: revision, Type: rollcall.EventGone}
}

func TestSpans(t *testing.T) {
	now := at("12:00:00")
	for _, row := range []struct {
		name   string
		events []rollcall.HistoryEvent
		points []Point
		want   []string
	}{
		{"nothing is known", []rollcall.HistoryEvent{came(5, ""), gone(6)}, nil, []string{"-", "-"}},
		{"a start bounds what is later", []rollcall.HistoryEvent{gone(4), came(5, "09:00:00"), gone(6)}, nil, []string{"-", ">09:00:00", ">09:00:00"}},
		{"an older start tells less", []rollcall.HistoryEvent{came(5, "09:00:00"), came(6, "08:00:00")}, nil, []string{">09:00:00", ">09:00:00"}},
		{"a start after now tells nothing", []rollcall.HistoryEvent{came(5, "13:00:00"), gone(6)}, nil, []string{"-", "-"}},
		{"before the first point", []rollcall.HistoryEvent{gone(5), gone(7)}, []Point{{7, at("11:00:00")}}, []string{"<11:00:00", "<11:00:00"}},
		{"after the last point", []rollcall.HistoryEvent{gone(8)}, []Point{{7, at("11:00:00")}}, []string{">11:00:00"}},
		{"between points", []rollcall.HistoryEvent{gone(6), gone(7)}, []Point{{5, at("10:00:00")}, {5, at("10:30:00")}, {7, at("11:00:00")}},
			[]string{"10:30:00..11:00:00", "10:30:00..11:00:00"}},
		{"within a second", []rollcall.HistoryEvent{gone(6)}, []Point{{5, at("10:00:00")}, {6, at("10:00:01")}}, []string{"10:00:01"}},
		{"a start between points", []rollcall.HistoryEvent{came(6, "10:50:00"), gone(7)}, []Point{{5, at("10:30:00")}, {7, at("11:00:00")}},
			[]string{"10:50:00..11:00:00", "10:50:00..11:00:00"}},
		{"a start that contradicts the points", []rollcall.HistoryEvent{came(6, "11:30:00"), gone(8)}, []Point{{5, at("10:30:00")}, {7, at("11:00:00")}},
			[]string{"10:30:00..11:00:00", ">11:00:00"}},
		{"a start of another event that contradicts the points", []rollcall.HistoryEvent{came(3, "10:45:00"), gone(5)}, []Point{{5, at("10:30:00")}},
			[]string{"<10:30:00", "<10:30:00"}},
		{"yesterday", []rollcall.HistoryEvent{gone(5)}, []Point{{5, at("11:00:00").AddDate(0, 0, -1)}}, []string{"<2026-03-03 11:00:00"}},
	} {
		var got []string
		for _, s := range Spans(row.events, row.points, now) {
			got = append(got, s.Text(now))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

func TestClock(t *testing.T) {
	start := at("00:00:00")
	var c Clock
	note := func(cluster uint64, revision int64, second int) {
		c.Note(cluster, revision, start.Add(time.Duration(second)*time.Second))
	}
	check := func(what string, want ...string) {
		t.Helper()
		var got []string
		_, points := c.Points()
		for _, p := range points {
			got = append(got, fmt.Sprintf("%d@%d", p.Revision, p.Time.Sub(start)/time.Second))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("nothing yet")
	for second := range 5 {
		note(1, 7, second)
	}
	check("the revision stays", "7@0", "7@4")
	note(1, 7, 4)
	note(1, 8, 3)
	check("no time goes back", "7@0", "7@4")
	note(1, 9, 5)
	check("it grows", "7@0", "7@4", "9@5")
	note(1, 2, 6)
	check("the store lost its data", "2@6")
	note(2, 3, 7)
	check("another cluster", "3@7")
	for i := range 3 * MaxPoints {
		note(2, int64(10+i), 10+i)
	}
	_, points := c.Points()
	if n := len(points); n > MaxPoints || n < MaxPoints*9/10 || points[n-1].Revision != 9+3*MaxPoints {
		t.Errorf("%d points, the last %v", n, points[n-1])
	}
}
