// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package greeter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

// The count begins when all servers have answered, or says which have not within the time for that.
func TestAwaitServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		call := func(...grpc.CallOption) (string, error) {
			if time.Since(began) < time.Second {
				return "blue", nil // green is not connected yet
			}
			return "green", nil
		}
		if err := await(call, 2); err != nil || time.Since(began) < time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := await(call, 2); err == nil || !strings.Contains(err.Error(), "only these answer: [green]") {
			t.Errorf("got %v", err)
		}
	})
}
