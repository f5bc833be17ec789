// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"sort"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// Span bounds when something happened: not before After, and by Before. Zero is no bound.
type Span struct{ After, Before time.Time }

// Spans returns the span of each event of a history, as far as points and the instances' own
// "started" tell: what came had started before. Clocks of machines differ, so a start that
// contradicts the points, or is after now, tells nothing.
func Spans(events []rollcall.HistoryEvent, points []Point, now time.Time) []Span {
	spans := make([]Span, len(events))
	var started time.Time // of what came so far
	for i, e := range events {
		s := &spans[i]
		next := sort.Search(len(points), func(i int) bool { return points[i].Revision >= e.Revision })
		if next > 0 {
			s.After = points[next-1].Time
		}
		latest := now
		if next < len(points) {
			s.Before = points[next].Time
			latest = s.Before
		}
		if e.Type == rollcall.EventCame {
			if t := e.New.Attributes().Started; t.After(started) && !t.After(latest) {
				started = t
			}
		}
		if started.After(s.After) && !started.After(latest) {
			s.After = started
		}
	}
	return spans
}

// Precise reports whether the span is at most a second long.
func (s Span) Precise() bool {
	return !s.After.IsZero() && !s.Before.IsZero() && s.Before.Sub(s.After) <= time.Second
}

// Text returns the span for people, in the zone of now, with dates where they are not
// today's: "12:03:04", ">12:03:04", "<12:03:04", "12:03:04..12:09:10", or "-".
func (s Span) Text(now time.Time) string {
	switch {
	case s.After.IsZero() && s.Before.IsZero():
		return "-"
	case s.Precise():
		return timeText(s.Before, now)
	case s.Before.IsZero():
		return ">" + timeText(s.After, now)
	case s.After.IsZero():
		return "<" + timeText(s.Before, now)
	}
	return timeText(s.After, now) + ".." + timeText(s.Before, now)
}

func timeText(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
