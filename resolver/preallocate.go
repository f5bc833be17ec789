// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"sync/atomic"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall/internal/preallocate"
)

// preallocated is memory for the next state of a large service, allocated between two changes:
// see BenchmarkPreallocated.
type preallocated struct {
	memory atomic.Pointer[[]grpcresolver.Endpoint]
}

// take returns the memory, or nil.
func (p *preallocated) take() []grpcresolver.Endpoint {
	if memory := p.memory.Swap(nil); memory != nil {
		return *memory
	}
	return nil
}

// refill gets memory for some more than n endpoints, unless there is some. They are so few that
// at 1,000 endpoints it takes less than the 32 KiB from which the allocator takes longer.
func (p *preallocated) refill(n int) {
	if p.memory.Load() != nil {
		return
	}
	memory := preallocate.Slice[grpcresolver.Endpoint](n + n/64 + 4)
	p.memory.Store(&memory)
}
