// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package plural gives words the form that goes with a number.
package plural

import "fmt"

// Count returns a number of things, such as "1 endpoint" or "2 endpoints".
func Count(n int, one, many string) string { return fmt.Sprintf("%d %s", n, Form(n, one, many)) }

// Form returns one if n is 1, else many.
func Form(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
