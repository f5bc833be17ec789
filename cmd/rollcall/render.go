// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// instanceList is a service as commands show it.
type instanceList struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision      int64                `json:"revision"`
	Instances     []inventory.Instance `json:"instances"` // those that clients leave out among them: see status
	ServiceConfig *serviceConfig       `json:"serviceConfig,omitempty"`
}

func newInstanceList(service string, snap *rollcall.Snapshot) instanceList {
	return instanceList{APIVersion: apiVersion, Kind: "InstanceList", serviceName: nameOf(service), Revision: snap.Revision(),
		Instances: inventory.Instances(snap, inventory.Under(service))}
}

// dash returns a count for a table in which only others than 0 are to be seen.
func dash(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// leftOutTable lists what clients leave out and why. It is empty if they use everything.
func leftOutTable(instances []inventory.Instance) string {
	rows := [][]string{{"LEFT OUT", "CAUSE"}}
	for _, i := range instances {
		if why := i.Why(); why != "" {
			rows = append(rows, []string{i.ID, why})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows...)
}

// ignoredTable lists the fields of the metadata whose values are invalid, so that their defaults count.
// It is empty if there are none.
func ignoredTable(instances []inventory.Instance) string {
	rows := [][]string{{"IGNORED", "FIELD", "CAUSE"}}
	for _, i := range instances {
		for _, field := range i.FieldErrors {
			rows = append(rows, []string{i.ID, field.Field, field.Reason})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows...)
}
