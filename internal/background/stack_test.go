// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package background

import (
	"runtime"
	"sync"
	"testing"
)

func TestGrowStack(t *testing.T) {
	stackOf := func(run func()) uint64 {
		const n = 1000
		var begun, ended sync.WaitGroup
		begun.Add(n)
		end := make(chan struct{})
		for range n {
			ended.Go(func() {
				run()
				begun.Done()
				<-end
			})
		}
		begun.Wait()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		close(end)
		ended.Wait()
		return m.StackInuse / n
	}
	small := stackOf(func() {})
	if grown := stackOf(GrowStack); grown < small+12<<10 || grown > small+20<<10 {
		t.Errorf("a goroutine has %d bytes of stack, and %d once it has grown", small, grown)
	}
}
