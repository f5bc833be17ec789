// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package plural

import "testing"

func TestCount(t *testing.T) {
	for n, want := range []string{"0 keys are left", "1 key is left", "2 keys are left"} {
		if got := Count(n, "key is left", "keys are left"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
