// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package spread

import "google.golang.org/grpc/balancer"

// picker divides picks among others.
type picker struct {
	table *Table
	among []balancer.Picker
}

// NewPicker returns a picker that has others pick, by their weights.
func NewPicker(weights []uint32, among []balancer.Picker) balancer.Picker {
	return &picker{New(weights), among}
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	return p.among[p.table.Next()].Pick(info)
}
