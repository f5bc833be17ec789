// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"flag"
	"log/slog"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, several at a time since they mostly wait. It fails if they leave
// a goroutine behind.
func Main(m goleak.TestingM) {
	if err := flag.Set("test.parallel", "6"); err != nil { // a -parallel on the command line wins
		panic(err)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the faults would fill the log
	goleak.VerifyTestMain(m,
		// etcd's own manager, which is measured beside Rollcall, waits for ever to hand over
		// an update when its resolver is closed at the wrong moment.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/client/v3/naming/endpoints.(*endpointManager).watch"))
}
