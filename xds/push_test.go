// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// All streams are woken, by turns, and waited for; but one that is slow for no longer than
// maxPush, once, and one that has ended not at all.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, work = 1000, time.Millisecond
		var mu sync.Mutex
		var woken, out, most int64
		streams := make([]*stream, n)
		stop := make(chan struct{})
		defer close(stop)
		for i := range streams {
			s := &stream{wakeup: make(chan *turn, 1)}
			streams[i] = s
			go func() {
				for {
					select {
					case turn := <-s.wakeup:
						mu.Lock()
						out++
						most = max(most, out)
						mu.Unlock()
						time.Sleep(work)
						mu.Lock()
						out--
						woken++
						mu.Unlock()
						turn.done(true)
					case <-stop:
						return
					}
				}
			}()
		}
		turns := int64(8 * runtime.GOMAXPROCS(0))
		took := func(streams []*stream) time.Duration {
			woken, most = 0, 0
			began := time.Now()
			if !push(streams) {
				t.Error("nothing was sent")
			}
			if woken != n || most > turns {
				t.Errorf("%d streams were woken, at most %d at once; want %d, at most %d", woken, most, n, turns)
			}
			return time.Since(began)
		}
		all := time.Duration((n+turns-1)/turns) * work
		if got := took(streams); got != all {
			t.Errorf("a push took %v, want %v", got, all)
		}
		slow := &stream{wakeup: make(chan *turn, 1)}
		if got := took(append([]*stream{slow}, streams...)); got != maxPush {
			t.Errorf("with a slow stream a push took %v, want %v", got, maxPush)
		}
		if got := took(append(streams, slow)); got != all {
			t.Errorf("with a stream that has not taken the last turn a push took %v, want %v", got, all)
		}
		slow.wakeNoMore()
		if got := took(append(streams, slow)); got != all {
			t.Errorf("with a stream that has ended a push took %v, want %v", got, all)
		}
	})
}

// Slow streams that have all turns keep nobody from being woken.
func TestPushStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var streams []*stream
		for range 100 * runtime.GOMAXPROCS(0) {
			streams = append(streams, &stream{wakeup: make(chan *turn, 1)})
		}
		began := time.Now()
		push(streams)
		if took := time.Since(began); took != maxPush {
			t.Errorf("the push took %v, want %v", took, maxPush)
		}
		for i, s := range streams {
			if len(s.wakeup) != 1 {
				t.Fatalf("stream %d of %d was not woken", i, len(streams))
			}
		}
	})
}
