// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package background is about goroutines: it starts those that whoever started them joins, and grows
// their stacks.
package background

import "context"

// Start runs a function in a goroutine, until the context ends, and returns what ends it and
// joins it.
func Start(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
