// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall"
)

func TestShareCalls(t *testing.T) {
	at := func(id, zone string, weight int, more string) *rollcall.Instance {
		return &rollcall.Instance{Key: "s/" + id, Addr: id + ":1", Metadata: fmt.Appendf(nil, `{"zone":%q,"weight":%d%s}`, zone, weight, more)}
	}
	const drains = `,"status":"draining"`
	a, b, c, drained := at("a", "x", 2, ""), at("b", "x", 1, ""), at("c", "y", 1, ""), at("c", "y", 1, drains)
	again, againDrained := at("b", "y", 1, ""), at("b", "y", 1, drains) // at the address of a, and newer
	again.Addr, again.CreateRevision = a.Addr, 1
	againDrained.Addr, againDrained.CreateRevision = a.Addr, 1
	gone, allGone := at("a", "x", 2, drains), []*rollcall.Instance{at("a", "x", 2, drains), drained}
	for _, row := range []struct {
		name    string
		was     []*rollcall.Instance
		changed []*rollcall.Instance
		alike   bool
		moved   float64
		want    []CallShare // shares alone
	}{
		{"one of three drains", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{gone}, false, 0.5, []CallShare{
			{Before: 0.5, ZoneBefore: 2. / 3}, {Before: 0.25, After: 0.5, ZoneBefore: 1. / 3, ZoneAfter: 1}, {Before: 0.25, After: 0.5, ZoneBefore: 1, ZoneAfter: 1}}},
		{"one of three, alike", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{gone}, true, 1. / 3, []CallShare{
			{Before: 1. / 3, ZoneBefore: 0.5}, {Before: 1. / 3, After: 0.5, ZoneBefore: 0.5, ZoneAfter: 1}, {Before: 1. / 3, After: 0.5, ZoneBefore: 1, ZoneAfter: 1}}},
		{"the last of a zone", []*rollcall.Instance{a, b, c}, []*rollcall.Instance{drained}, false, 0.25, []CallShare{
			{Before: 0.5, After: 2. / 3, ZoneBefore: 2. / 3, ZoneAfter: 2. / 3}, {Before: 0.25, After: 1. / 3, ZoneBefore: 1. / 3, ZoneAfter: 1. / 3}, {Before: 0.25, ZoneBefore: 1}}},
		{"all: they are called nevertheless", []*rollcall.Instance{a, c}, allGone, false, 0, []CallShare{
			{Before: 2. / 3, After: 2. / 3, ZoneBefore: 1, ZoneAfter: 1}, {Before: 1. / 3, After: 1. / 3, ZoneBefore: 1, ZoneAfter: 1}}},
		{"the other at its address takes over", []*rollcall.Instance{a, again}, []*rollcall.Instance{againDrained}, false, 1, []CallShare{
			{After: 1, ZoneAfter: 1}, {Before: 1, ZoneBefore: 1}}},
		{"one takes calls again", []*rollcall.Instance{a, b, drained}, []*rollcall.Instance{c}, false, 0.25, []CallShare{
			{Before: 2. / 3, After: 0.5, ZoneBefore: 2. / 3, ZoneAfter: 2. / 3}, {Before: 1. / 3, After: 0.25, ZoneBefore: 1. / 3, ZoneAfter: 1. / 3}, {After: 0.25, ZoneAfter: 1}}},
		{"one takes more", []*rollcall.Instance{b, c}, []*rollcall.Instance{at("c", "y", 3, "")}, false, 0.25, []CallShare{
			{Before: 0.5, After: 0.25, ZoneBefore: 1, ZoneAfter: 1}, {Before: 0.5, After: 0.75, ZoneBefore: 1, ZoneAfter: 1}}},
		{"one that drains already, and one that is left as it is", []*rollcall.Instance{b, drained}, []*rollcall.Instance{drained}, false, 0, []CallShare{
			{Before: 1, After: 1, ZoneBefore: 1, ZoneAfter: 1}, {}}},
		{"nobody", nil, nil, false, 0, nil},
	} {
		changed := make(map[string]*rollcall.Instance)
		for _, inst := range row.changed {
			changed[inst.Key] = inst
		}
		by := ByWeight
		if row.alike {
			by = Alike
		}
		rows, moved := shareCalls("s", row.was, changed, by)
		same := slices.EqualFunc(rows, row.want, func(got, want CallShare) bool {
			return near(got.Before, want.Before) && near(got.After, want.After) && near(got.ZoneBefore, want.ZoneBefore) && near(got.ZoneAfter, want.ZoneAfter)
		})
		if !same || !near(moved, row.moved) {
			t.Errorf("%s: moved %v, want %v; shares\n%+v, want\n%+v", row.name, moved, row.moved, rows, row.want)
		}
	}
}

// The rows of a preview tell what changes, and why an endpoint gets no calls.
func TestShareCallsRows(t *testing.T) {
	at := func(id, addr, metadata string) *rollcall.Instance {
		return &rollcall.Instance{Key: "s/" + id, Addr: addr, Metadata: []byte(metadata)}
	}
	older, newer := at("b", "a:1", ""), at("c", "a:1", "")
	newer.CreateRevision = 1
	was := []*rollcall.Instance{at("a", "unix:/x", ""), older, newer, at("d", "d:1", `{"weight":2,"version":"v1"}`)}
	changed := map[string]*rollcall.Instance{"s/a": at("a", "unix:/x", `{"weight":9}`), "s/b": at("b", "a:1", `{"weight":9}`),
		"s/d": at("d", "d:1", `{"weight":3,"version":"v1","status":"draining"}`)}
	rows, moved := shareCalls("s", was, changed, ByWeight)
	want := []CallShare{
		{ID: "a", Addr: "unix:/x", Status: "serving", Weight: 1, WeightAfter: 9, Changes: true, Cause: "its address is disallowed"},
		{ID: "b", Addr: "a:1", Status: "serving", Weight: 1, WeightAfter: 9, Changes: true, Cause: "a newer key has its address"},
		{ID: "c", Addr: "a:1", Status: "serving", Weight: 1, WeightAfter: 1, Before: 1. / 3, After: 1, ZoneBefore: 1. / 3, ZoneAfter: 1},
		{ID: "d", Addr: "d:1", Status: "serving", Version: "v1", Weight: 2, WeightAfter: 3, Changes: true, Drains: true, Before: 2. / 3, ZoneBefore: 2. / 3},
	}
	if !slices.Equal(rows, want) || !near(moved, 2./3) {
		t.Errorf("moved %v, rows\n%+v, want\n%+v", moved, rows, want)
	}
	if rows, _ := shareCalls("s", nil, nil, ByWeight); rows == nil {
		t.Error("no rows are null in JSON")
	}
}

// SetField's errors are those of a preview, and only what changes neither mark nor weight is the same.
func TestPreviewField(t *testing.T) {
	snap := new(rollcall.Snapshot)
	if _, err := PreviewField("s", slices.Collect(snap.All()), []Key{{Key: "s/a", Cause: errors.New("no JSON")}}, "weight", 2, ByWeight); err == nil || !strings.Contains(err.Error(), "no JSON") {
		t.Errorf("of an invalid value: %v", err)
	}
	drained := &rollcall.Instance{Key: "s/a", Addr: "a:1", Metadata: []byte(`{"status":"draining","weight":2}`)}
	for _, row := range []struct {
		field string
		value any
		same  int
	}{
		{"status", rollcall.StatusDraining, 1}, {"status", nil, 0}, {"weight", 2, 1}, {"weight", 3, 0},
	} {
		p, err := PreviewField("s", slices.Collect(snap.All()), []Key{keyOf(drained)}, row.field, row.value, ByWeight)
		if err != nil || len(p.Same) != row.same {
			t.Errorf("%s = %v: %d are the same, want %d; error %v", row.field, row.value, len(p.Same), row.same, err)
		}
	}
}

// What a service config tells of weights: the first of its policies counts, and of a policy that has others those.
func TestPolicyOf(t *testing.T) {
	for _, row := range []struct {
		config, name string
		want         Weighting
	}{
		{"", "", UnknownWeighting},
		{"garbage", "", UnknownWeighting},
		{`{"methodConfig":[{"name":[{}],"timeout":"1s"}]}`, "", UnknownWeighting},
		{`{"loadBalancingPolicy":"round_robin"}`, "round_robin", Alike},
		{`{"loadBalancingConfig":[{"round_robin":{}},{"rollcall_weighted":{}}]}`, "round_robin", Alike},
		{`{"loadBalancingConfig":[{"rollcall_weighted":{}},{"round_robin":{}}]}`, "rollcall_weighted", ByWeight},
		{`{"loadBalancingConfig":[{"ring_hash_experimental":{}}]}`, "ring_hash_experimental", ByWeight},
		{`{"loadBalancingConfig":[{"least_request_experimental":{}}]}`, "least_request_experimental", Alike},
		{`{"loadBalancingConfig":[{"weighted_round_robin":{}}]}`, "weighted_round_robin", UnknownWeighting},
		{`{"loadBalancingConfig":[{"mine":{}}]}`, "mine", UnknownWeighting},
		{`{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}`, "pick_first", ByWeight},
		{`{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":false}}]}`, "pick_first", Alike},
		{`{"loadBalancingConfig":[{"rollcall_zone":{"zone":"a"}}]}`, "rollcall_zone", Alike},
		{`{"loadBalancingConfig":[{"rollcall_zone":{"zone":"a","childPolicy":[{"rollcall_weighted":{}}]}}]}`, "rollcall_zone", ByWeight},
		{`{"loadBalancingConfig":[{"rollcall_zone":{"zone":"a","childPolicy":[{"round_robin":{}}]}}]}`, "rollcall_zone", Alike},
		{`{"loadBalancingConfig":[{"outlier_detection_experimental":{"childPolicy":[{"rollcall_weighted":{}}]}}]}`, "outlier_detection_experimental", ByWeight},
		{`{"loadBalancingConfig":[{"random_subsetting_experimental":{}}]}`, "random_subsetting_experimental", UnknownWeighting},
	} {
		config := &rollcall.ServiceConfig{JSON: json.RawMessage(row.config)}
		if got := PolicyOf(config); got != (Policy{row.name, row.want}) {
			t.Errorf("%s: %v", row.config, got)
		}
	}
	if got := PolicyOf(nil).Weighting; got != UnknownWeighting {
		t.Errorf("a config that could not be read: %v", got)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
