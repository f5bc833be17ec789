// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package background

import (
	"runtime"
	"runtime/debug"
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
	if runtime.GOOS == "windows" {
		t.Skip("stacks have another size there")
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it shrinks stacks
	if small := stackOf(func() {}); small > 8<<10 {
		t.Errorf("a goroutine has %d bytes of stack", small)
	}
	if grown := stackOf(GrowStack); grown < 15<<10 || grown > 24<<10 {
		t.Errorf("a goroutine that has grown its stack has %d bytes", grown)
	}
}
