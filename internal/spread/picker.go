// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package spread

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
)

// picker divides picks among others. Its table is made by the first pick: while many
// connections come up there are more pickers than picks.
type picker struct {
	table atomic.Pointer[Table[balancer.Picker]]

	mu      sync.Mutex
	weights []uint32
	among   []balancer.Picker
}

// NewPicker returns a picker that has others pick, by their weights.
func NewPicker(weights []uint32, among []balancer.Picker) balancer.Picker {
	return &picker{weights: weights, among: among}
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	t := p.table.Load()
	if t == nil {
		t = p.make()
	}
	return t.Next().Pick(info)
}

func (p *picker) make() *Table[balancer.Picker] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table.Load() == nil {
		p.table.Store(New(p.weights, p.among))
		p.weights, p.among = nil, nil
	}
	return p.table.Load()
}
