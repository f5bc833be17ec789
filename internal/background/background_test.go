// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package background

import (
	"context"
	"testing"
)

func TestStart(t *testing.T) {
	ended := false
	stop := Start(context.Background(), func(ctx context.Context) {
		<-ctx.Done()
		ended = true
	})
	stop()
	if !ended {
		t.Error("stop has not joined what runs")
	}
	stop() // does nothing
	outer, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	defer Start(outer, func(ctx context.Context) {
		<-ctx.Done()
		close(ran)
	})()
	cancel()
	<-ran // it ends with the context
}
