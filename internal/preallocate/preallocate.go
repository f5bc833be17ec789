// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package preallocate gets memory before anybody waits for what is written to it.
package preallocate

import "unsafe"

// page is no more than a system's page of memory, in bytes.
const page = 4 << 10

// Slice returns memory for some more than n elements. Each page of it has been touched: the first touch
// takes longer than all that is written to a page.
func Slice[T any](n int) []T {
	memory := make([]T, n+n/64+4)
	var zero T
	for i := 0; i < len(memory); i += max(page/int(unsafe.Sizeof(zero)), 1) {
		memory[i] = zero
	}
	return memory
}
