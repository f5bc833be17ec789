// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package preallocate gets memory before anybody waits for what is written to it.
package preallocate

import "unsafe"

// page is no more than a system's page of memory, in bytes.
const page = 4 << 10

// Slice returns a slice of n elements. Each page of its memory has been touched: that takes longer than all
// that is written to a page later.
func Slice[T any](n int) []T {
	memory := make([]T, n)
	var zero T
	for i := 0; i < n; i += max(page/int(unsafe.Sizeof(zero)), 1) {
		memory[i] = zero
	}
	return memory
}
