// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package spread

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
)

// picker divides picks among other pickers. The first pick makes its table: while many
// connections come up there are more pickers than picks.
type picker struct {
	table atomic.Pointer[table]

	mu    sync.Mutex
	among func() ([]uint32, []balancer.Picker) // nil once there is a table
}

// NewPicker returns a picker that divides picks among others by their weights. It calls
// among once, at the first pick.
func NewPicker(among func() (weights []uint32, pickers []balancer.Picker)) balancer.Picker {
	return &picker{among: among}
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	t := p.table.Load()
	if t == nil {
		t = p.make()
	}
	return t.pick().Pick(info)
}

func (p *picker) make() *table {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.among != nil {
		p.table.Store(newTable(p.among()))
		p.among = nil
	}
	return p.table.Load()
}
