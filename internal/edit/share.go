// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// CallShare is what an endpoint gets of the calls, as parts of 1, before and after others or it drain:
// of all calls, and of those that stay in its zone. Where all drain, clients call all.
type CallShare struct {
	ID         string  `json:"id"`
	Addr       string  `json:"addr"`
	Status     string  `json:"status"` // before: "serving" or "draining"
	Zone       string  `json:"zone,omitempty"`
	Weight     uint32  `json:"weight"`
	Drains     bool    `json:"drains"`
	Before     float64 `json:"before"`
	After      float64 `json:"after"`
	ZoneBefore float64 `json:"zoneBefore"`
	ZoneAfter  float64 `json:"zoneAfter"`
}

// weights of the endpoints of a service, and of each of its zones.
type weights struct {
	of    map[*rollcall.Instance]float64
	total float64
	zones map[string]float64
}

func weigh(instances []*rollcall.Instance) weights {
	w := weights{of: make(map[*rollcall.Instance]float64), zones: make(map[string]float64)}
	for _, inst := range instances {
		attributes := inst.Attributes()
		weight := float64(attributes.Weight)
		w.of[inst] = weight
		w.total += weight
		w.zones[attributes.Locality.Zone] += weight
	}
	return w
}

// shares returns the part of all calls, and of those of its zone, that an endpoint gets.
func (w weights) shares(inst *rollcall.Instance, zone string) (ofAll, ofZone float64) {
	if weight := w.of[inst]; weight > 0 {
		return weight / w.total, weight / w.zones[zone]
	}
	return 0, 0
}

// PreviewDrain returns what the endpoints of a service get of the calls before and after some keys drain,
// sorted by key, in proportion to their weights, and which part of all calls moves. Of those that drain already, it has
// the given ones.
func PreviewDrain(snap *rollcall.Snapshot, keys []Key) (rows []CallShare, moved float64) {
	return shareCalls(called(snap, nil), called(snap, keys), keys)
}

// called returns the instances that clients call if some keys drain: all of them where all drain.
func called(snap *rollcall.Snapshot, drained []Key) []*rollcall.Instance {
	if taking := TakingCalls(snap, drained); len(taking) > 0 {
		return taking
	}
	return newest(snap, func(*rollcall.Instance) bool { return true })
}

func shareCalls(before, after []*rollcall.Instance, drained []Key) (rows []CallShare, moved float64) {
	from, to := weigh(before), weigh(after)
	all := slices.Concat(before, after)
	for _, k := range drained {
		if k.Instance != nil && k.Instance.Draining() {
			all = append(all, k.Instance)
		}
	}
	slices.SortFunc(all, func(a, b *rollcall.Instance) int { return strings.Compare(a.Key, b.Key) })
	for _, inst := range slices.Compact(all) {
		attributes := inst.Attributes()
		row := CallShare{ID: inst.ID(), Addr: inst.Addr, Status: rollcall.StatusServing, Zone: attributes.Locality.Zone, Weight: attributes.Weight,
			Drains: slices.ContainsFunc(drained, func(k Key) bool { return k.Key == inst.Key })}
		if inst.Draining() {
			row.Status = rollcall.StatusDraining
		}
		row.Before, row.ZoneBefore = from.shares(inst, row.Zone)
		row.After, row.ZoneAfter = to.shares(inst, row.Zone)
		moved += max(row.Before-row.After, 0)
		rows = append(rows, row)
	}
	return rows, moved
}
