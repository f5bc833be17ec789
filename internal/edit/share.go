// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// Weighting is what the calls of a service go by, as far as its service config tells.
type Weighting string

const (
	ByWeight         Weighting = "weight"  // the policy reads weights
	Alike            Weighting = "alike"   // it reads none
	UnknownWeighting Weighting = "unknown" // the service config names no policy, or one that is not known here
)

// Policy is the balancing policy of a service.
type Policy struct {
	Name      string // "": the service config names none
	Weighting Weighting
}

// PolicyOf returns the policy that a service config names; nil: the config could not be read.
func PolicyOf(config *rollcall.ServiceConfig) Policy {
	var c struct {
		LoadBalancingConfig []map[string]json.RawMessage
		LoadBalancingPolicy string // the older form
	}
	switch {
	case config == nil || json.Unmarshal(config.JSON, &c) != nil:
		return Policy{Weighting: UnknownWeighting}
	case len(c.LoadBalancingConfig) == 0 && c.LoadBalancingPolicy != "":
		c.LoadBalancingConfig = []map[string]json.RawMessage{{c.LoadBalancingPolicy: json.RawMessage("{}")}}
	}
	return firstPolicy(c.LoadBalancingConfig)
}

// firstPolicy returns the first of some policies, which clients use if they know it.
func firstPolicy(policies []map[string]json.RawMessage) Policy {
	if len(policies) > 0 {
		for name, settings := range policies[0] {
			return Policy{name, weightingOf(name, settings)}
		}
	}
	return Policy{Weighting: UnknownWeighting}
}

func weightingOf(name string, settings json.RawMessage) Weighting {
	var s struct {
		ShuffleAddressList bool
		ChildPolicy        []map[string]json.RawMessage
	}
	_ = json.Unmarshal(settings, &s)
	switch {
	case name == "rollcall_weighted", name == "ring_hash_experimental", name == "pick_first" && s.ShuffleAddressList:
		return ByWeight
	case name == "round_robin", name == "least_request_experimental", name == "pick_first",
		name == "rollcall_zone" && s.ChildPolicy == nil: // round_robin within a zone
		return Alike
	case name == "rollcall_zone", name == "outlier_detection_experimental", name == "random_subsetting_experimental":
		return firstPolicy(s.ChildPolicy).Weighting
	}
	return UnknownWeighting
}

// CallShare is what an endpoint gets of the calls, as parts of 1, before and after a change: of all calls, and of those
// that stay in its zone. Where all drain, clients call all.
type CallShare struct {
	ID          string  `json:"id"`
	Addr        string  `json:"addr"`
	Status      string  `json:"status"` // before: "serving" or "draining"
	Zone        string  `json:"zone,omitempty"`
	Version     string  `json:"version,omitempty"`
	Weight      uint32  `json:"weight"` // before
	WeightAfter uint32  `json:"weightAfter"`
	Changes     bool    `json:"changes"` // it is among those that the change is made to
	Drains      bool    `json:"drains"`  // so it is, and is draining after it
	Before      float64 `json:"before"`
	After       float64 `json:"after"`
	ZoneBefore  float64 `json:"zoneBefore"`
	ZoneAfter   float64 `json:"zoneAfter"`
	Cause       string  `json:"cause,omitempty"` // why it gets no calls, if not because it drains
}

// Preview is what a change would do to the calls of a service.
type Preview struct {
	Rows  []CallShare // of endpoints that are called before or after, and of those that change; sorted by key
	Moved float64     // part of all calls
	Same  []Key       // that are already what the change would make of them

	Serving, ServingAfter int // endpoints that take new calls; where there are none, clients call all
}

// PreviewField returns what setting a field of some keys' metadata, or removing it if the value is nil, would do to the
// calls of a service, of which these are the instances, sorted by key. Its errors are those of SetField.
func PreviewField(service string, instances []*rollcall.Instance, keys []Key, field string, value any, by Weighting) (p Preview, err error) {
	changed := make(map[string]*rollcall.Instance, len(keys))
	for _, k := range keys {
		metadata, err := withField(k, field, value)
		if err != nil {
			return p, err
		}
		is := *k.Instance
		is.Metadata = metadata
		changed[k.Key] = &is
		if SameShare(k.Instance, &is) {
			p.Same = append(p.Same, k)
		}
	}
	after := replaced(instances, changed)
	p.Serving = len(TakingCalls(slices.Values(instances), nil))
	p.ServingAfter = len(TakingCalls(slices.Values(after), nil))
	p.Rows, p.Moved = shareCalls(service, instances, changed, by)
	return p, nil
}

// replaced returns the instances with those that change as they are then.
func replaced(was []*rollcall.Instance, changed map[string]*rollcall.Instance) []*rollcall.Instance {
	is := slices.Clone(was)
	for i, inst := range is {
		if after := changed[inst.Key]; after != nil {
			is[i] = after
		}
	}
	return is
}

// SameShare reports whether a write changes neither the draining mark of an endpoint nor its weight.
func SameShare(was, is *rollcall.Instance) bool {
	before, after := was.Attributes(), is.Attributes()
	return before.Draining == after.Draining && before.Weight == after.Weight
}

// shareCalls returns the shares of a service's instances, which are sorted by key, before and after some are changed.
func shareCalls(service string, was []*rollcall.Instance, changed map[string]*rollcall.Instance, by Weighting) (rows []CallShare, moved float64) {
	is := replaced(was, changed)
	from, to := weigh(was, by), weigh(is, by)
	rows = []CallShare{}
	for i, inst := range was {
		_, changes := changed[inst.Key]
		if !changes && from.of[inst.Key] == 0 && to.of[inst.Key] == 0 {
			continue
		}
		before, after := inst.Attributes(), is[i].Attributes()
		row := CallShare{ID: strings.TrimPrefix(inst.Key, service+"/"), Addr: inst.Addr, Status: before.Status(), Zone: before.Locality.Zone, Version: before.Version,
			Weight: before.Weight, WeightAfter: after.Weight, Changes: changes, Drains: changes && after.Draining}
		row.Before, row.ZoneBefore = from.shares(inst.Key, row.Zone)
		row.After, row.ZoneAfter = to.shares(inst.Key, row.Zone)
		if err := rollcall.HostPort(inst.Addr); err != nil {
			row.Cause = "its address is disallowed"
		} else if row.Before == 0 && row.After == 0 && !after.Draining {
			row.Cause = "a newer key has its address"
		}
		moved += max(row.Before-row.After, 0)
		rows = append(rows, row)
	}
	return rows, moved
}

// weights has the weight of each endpoint that is called, by key, and the totals.
type weights struct {
	of    map[string]float64
	total float64
	zones map[string]float64
}

// weigh returns the weights of the instances that clients call: those that serve, or all where all drain.
func weigh(instances []*rollcall.Instance, by Weighting) weights {
	called := newest(slices.Values(instances), func(inst *rollcall.Instance) bool { return !inst.Draining() })
	if len(called) == 0 {
		called = newest(slices.Values(instances), func(*rollcall.Instance) bool { return true })
	}
	w := weights{of: make(map[string]float64), zones: make(map[string]float64)}
	for _, inst := range called {
		attributes := inst.Attributes()
		weight := 1.0
		if by != Alike {
			weight = float64(attributes.Weight)
		}
		w.of[inst.Key] = weight
		w.total += weight
		w.zones[attributes.Locality.Zone] += weight
	}
	return w
}

// shares returns the part of all calls, and of those of its zone, that an endpoint gets.
func (w weights) shares(key, zone string) (ofAll, ofZone float64) {
	if weight := w.of[key]; weight > 0 {
		return weight / w.total, weight / w.zones[zone]
	}
	return 0, 0
}
