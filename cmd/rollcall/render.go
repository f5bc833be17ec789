// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// instanceList is a service, or all, as commands show it.
type instanceList struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision      int64                `json:"revision"`
	Instances     []inventory.Instance `json:"instances"` // those that clients leave out among them: see status
	ServiceConfig *serviceConfig       `json:"serviceConfig,omitempty"`
}

// newInstanceList returns the list of a service's snapshot, or of that of all for "".
func newInstanceList(service string, snap *rollcall.Snapshot) instanceList {
	list := instanceList{APIVersion: apiVersion, Kind: "InstanceList", serviceName: nameOf(service), Revision: snap.Revision()}
	if service != "" {
		list.Instances = inventory.Instances(snap, inventory.Under(service))
		return list
	}
	list.Instances = inventory.Instances(snap, rollcall.SplitKey)
	slices.SortStableFunc(list.Instances, func(a, b inventory.Instance) int { return strings.Compare(a.Service, b.Service) })
	return list
}

// dash returns a count for a table in which only others than 0 are to be seen.
func dash(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// leftOutTable lists what clients leave out and why. It is empty if they use everything.
func leftOutTable(instances []inventory.Instance, name func(inventory.Instance) string) string {
	rows := [][]string{{"LEFT OUT", "CAUSE"}}
	for _, i := range instances {
		if why := i.Why(); why != "" {
			rows = append(rows, []string{name(i), why})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows...)
}

// ignoredTable lists the fields of the metadata whose values are invalid, so that their defaults count.
// It is empty if there are none.
func ignoredTable(instances []inventory.Instance, name func(inventory.Instance) string) string {
	rows := [][]string{{"IGNORED", "FIELD", "CAUSE"}}
	for _, i := range instances {
		for _, field := range i.FieldErrors {
			rows = append(rows, []string{name(i), field.Field, field.Reason})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows...)
}
