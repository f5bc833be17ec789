// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRenderingIsBounded: however many views there are, few of them are rendered at a time.
func TestRenderingIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var now, most, done atomic.Int64
	for range 50 {
		running.Go(func() {
			pace(ctx, nil, func() {
				n := now.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				time.Sleep(time.Millisecond)
				now.Add(-1)
				done.Add(1)
			})
		})
	}
	eventually(t, "all views are rendered", func() bool { return done.Load() == 50 })
	cancel()
	running.Wait()
	if got := most.Load(); got > int64(cap(rendering)) {
		t.Errorf("%d views were rendered at a time, want at most %d", got, cap(rendering))
	}
}

// still is a view that shows one frame.
type still struct{}

func (still) follow(ctx context.Context, show func(frame)) {
	show(frame{})
	<-ctx.Done()
}

// TestUnreadViewsEndSoon: a view that no stream has read ends before one that a page was following.
func TestUnreadViewsEndSoon(t *testing.T) {
	h := newHub()
	defer h.close()
	for key, stream := range map[string]bool{"read": true, "unread": false} {
		_, release, err := h.open(key, still{}, stream)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	open := func(key string) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.views[key] != nil
	}
	eventually(t, "the unread view has ended", func() bool { return !open("unread") })
	if !open("read") {
		t.Error("the view that was read has ended with it")
	}
}
