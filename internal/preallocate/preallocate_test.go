// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package preallocate

import "testing"

// Slice takes elements of any size, pages and nothing included.
func TestSlice(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 10_000} {
		if got := len(Slice[*int](n)); got <= n || got > n+n/10+10 {
			t.Errorf("%d elements for %d", got, n)
		}
	}
	if Slice[[2 * page]byte](3) == nil || Slice[struct{}](3) == nil {
		t.Error("no memory")
	}
}
