// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// Commands name endpoints as the command takes them.
func TestForEach(t *testing.T) {
	rows := []*inventory.Instance{
		{Service: "shop", ID: "a", Addr: "10.0.0.1:80"},
		{Service: "shop", ID: "-a", Addr: "10.0.0.2:80"},
		{Service: "shop", Addr: "10.0.0.3:80"},
	}
	want := [][]string{
		{"rollcall", "rm", "shop", "a"},
		{"rollcall", "rm", "--", "shop", "-a"},
		{"rollcall", "rm", "shop", "10.0.0.3:80"},
	}
	if diff := cmp.Diff(want, forEach(rows, "rollcall rm")); diff != "" {
		t.Error(diff)
	}
}
