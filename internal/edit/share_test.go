// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/rollcall-grpc/rollcall"
)

func TestShareCalls(t *testing.T) {
	at := func(id, zone string, weight int) *rollcall.Instance {
		return &rollcall.Instance{Key: "s/" + id, Addr: id + ":1", Metadata: fmt.Appendf(nil, `{"zone":%q,"weight":%d}`, zone, weight)}
	}
	a, b, c := at("a", "x", 2), at("b", "x", 1), at("c", "y", 1)
	for _, row := range []struct {
		name          string
		before, after []*rollcall.Instance
		moved         float64
		want          []CallShare // of a, b and c: shares alone
	}{
		{"one of three", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{b, c}, 0.5, []CallShare{
			{Before: 0.5, ZoneBefore: 2. / 3}, {Before: 0.25, After: 0.5, ZoneBefore: 1. / 3, ZoneAfter: 1}, {Before: 0.25, After: 0.5, ZoneBefore: 1, ZoneAfter: 1}}},
		{"the last of a zone", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{a, b}, 0.25, []CallShare{
			{Before: 0.5, After: 2. / 3, ZoneBefore: 2. / 3, ZoneAfter: 2. / 3}, {Before: 0.25, After: 1. / 3, ZoneBefore: 1. / 3, ZoneAfter: 1. / 3}, {Before: 0.25, ZoneBefore: 1}}},
		{"all: they are called nevertheless", []*rollcall.Instance{a, c}, []*rollcall.Instance{a, c}, 0, []CallShare{
			{Before: 2. / 3, After: 2. / 3, ZoneBefore: 1, ZoneAfter: 1}, {Before: 1. / 3, After: 1. / 3, ZoneBefore: 1, ZoneAfter: 1}}},
		{"another at the same address takes over", []*rollcall.Instance{a}, []*rollcall.Instance{c}, 1, []CallShare{
			{Before: 1, ZoneBefore: 1}, {After: 1, ZoneAfter: 1}}},
		{"nobody", nil, nil, 0, nil},
	} {
		rows, moved := shareCalls(row.before, row.after, nil)
		same := slices.EqualFunc(rows, row.want, func(got, want CallShare) bool {
			return near(got.Before, want.Before) && near(got.After, want.After) && near(got.ZoneBefore, want.ZoneBefore) && near(got.ZoneAfter, want.ZoneAfter)
		})
		if !same || !near(moved, row.moved) {
			t.Errorf("%s: moved %v, want %v; shares\n%+v, want\n%+v", row.name, moved, row.moved, rows, row.want)
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
