// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// etcd's own manager, which compat_test.go measures, waits for ever to hand over
		// an update when its resolver is closed at the wrong moment.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/client/v3/naming/endpoints.(*endpointManager).watch"))
}
