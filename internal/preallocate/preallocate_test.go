// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package preallocate

import "testing"

func TestSlice(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 10_000} {
		if got := len(Slice[*int](n)); got != n {
			t.Errorf("%d elements, want %d", got, n)
		}
	}
	if got := len(Slice[[2 * page]byte](3)); got != 3 {
		t.Errorf("%d elements larger than a page, want 3", got)
	}
}
