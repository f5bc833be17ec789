// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// metaLabel is what the names of all labels of targets begin with. Prometheus drops such labels once it
// has relabelled a target.
const metaLabel = "__meta_rollcall_"

// targetGroup is a target of Prometheus, in the form of its HTTP service discovery.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// targetGroups returns a group for each instance below a prefix that a selector matches, sorted by key and never
// nil. Instances that are draining still run and are scraped; those with an invalid value or a
// disallowed address are left out. A port of 0 is that of the instance: its metrics_port, else its own.
func targetGroups(snap *rollcall.Snapshot, prefix string, split inventory.Splitter, selector rollcall.Selector, port uint16) []targetGroup {
	instances, _ := snap.Partition(nil)
	groups := make([]targetGroup, 0, len(instances))
	for _, inst := range instances {
		if !strings.HasPrefix(inst.Key, prefix) {
			continue
		}
		service, id := split(inst.Key)
		if service == "" || !selector.Matches(inst) {
			continue
		}
		a := inst.Attributes()
		groups = append(groups, targetGroup{[]string{targetOf(inst.Addr, port, a.MetricsPort)}, targetLabels(service, id, a, inst.Metadata)})
	}
	return groups
}

// targetOf returns an allowed address with the first port that is not 0 in place of its own.
func targetOf(addr string, ports ...uint16) string {
	for _, port := range ports {
		if port != 0 {
			host, _, _ := net.SplitHostPort(addr)
			return net.JoinHostPort(host, strconv.Itoa(int(port)))
		}
	}
	return addr
}

// targetLabels returns the labels of an instance, without those that would be empty: to Prometheus
// that is the same.
func targetLabels(service, id string, a rollcall.Attributes, metadata json.RawMessage) map[string]string {
	labels := make(map[string]string)
	own := map[string]string{
		"service": service, "id": id, "status": a.Status(), "weight": strconv.FormatUint(uint64(a.Weight), 10), "version": a.Version, "host": a.Host,
		"region": a.Locality.Region, "zone": a.Locality.Zone, "subzone": a.Locality.Subzone,
	}
	for name, value := range own {
		if value != "" {
			labels[metaLabel+name] = value
		}
	}
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(metadata, &fields) // what is not an object has none
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		label := metaLabel + "metadata_" + strings.Map(labelRune, name)
		_, isOwn := own[name]
		_, taken := labels[label] // by a name that differs in what labelRune replaces
		if value := scalar(fields[name]); !isOwn && value != "" && (!taken || strings.HasSuffix(label, "_"+name)) {
			labels[label] = value
		}
	}
	return labels
}

// labelRune returns a character that may be in the name of a label.
func labelRune(r rune) rune {
	if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return '_'
}

// scalar returns a JSON string as it is, a number or a boolean as written, and "" for anything else.
func scalar(value json.RawMessage) string {
	switch value[0] {
	case '{', '[', 'n':
		return ""
	case '"':
		var text string
		_ = json.Unmarshal(value, &text) // it is valid
		return text
	}
	return string(value)
}
