// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// worker is a transport whose responses take time, at work.
type worker struct {
	work func()
}

func (worker) Context() context.Context   { return context.Background() }
func (worker) receive() (*request, error) { select {} }
func (worker) incremental() bool          { return false }

func (w worker) send(*response) error {
	w.work()
	return nil
}

// following returns a stream that follows a view.
func following(v *view, work func()) *stream {
	return &stream{
		server:        &Server{opts: Options{PushInterval: time.Nanosecond, WriteTimeout: time.Hour}},
		transport:     worker{work},
		deadline:      time.NewTimer(time.Hour),
		subscriptions: map[*kind]*subscription{assignments: {kind: assignments, watches: []*watch{{view: v}}}},
	}
}

func (v *view) set(version string) { v.resource = &resource{body: new(anypb.Any), version: version} }

// All streams are sent a change, so many at a time, and waited for; but one that is slow for no longer
// than maxPush, once, and one that has ended not at all.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, work = 1000, time.Millisecond
		var mu sync.Mutex
		var sent, out, most int64
		v := new(view)
		streams := make([]*stream, n)
		for i := range streams {
			streams[i] = following(v, func() {
				mu.Lock()
				out++
				most = max(most, out)
				mu.Unlock()
				time.Sleep(work)
				mu.Lock()
				out--
				sent++
				mu.Unlock()
			})
		}
		atOnce := int64(8 * runtime.GOMAXPROCS(0))
		took := func(version string, streams []*stream) time.Duration {
			v.set(version)
			sent, most = 0, 0
			began := time.Now()
			if !push(streams) {
				t.Error("nothing was sent")
			}
			if sent != n || most > atOnce {
				t.Errorf("%d streams were sent a change, at most %d at once; want %d, at most %d", sent, most, n, atOnce)
			}
			return time.Since(began)
		}
		all := time.Duration((n+atOnce-1)/atOnce) * work
		if got := took("1", streams); got != all {
			t.Errorf("a push took %v, want %v", got, all)
		}
		if push(streams) {
			t.Error("a change was sent twice")
		}
		reads := make(chan struct{})
		slow := following(v, func() { <-reads })
		if got := took("2", append([]*stream{slow}, streams...)); got != maxPush {
			t.Errorf("with a slow stream a push took %v, want %v", got, maxPush)
		}
		if got := took("3", append(streams, slow)); got != all {
			t.Errorf("with a stream that is sending a push took %v, want %v", got, all)
		}
		slow.forget()
		close(reads)
		if got := took("4", append(streams, slow)); got != all {
			t.Errorf("with a stream that has ended a push took %v, want %v", got, all)
		}
	})
}

// Slow streams, however many, keep no other from being sent a change.
func TestPushStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := new(view)
		v.set("1")
		reads := make(chan struct{})
		var streams []*stream
		for range 100 * runtime.GOMAXPROCS(0) {
			streams = append(streams, following(v, func() { <-reads }))
		}
		sent := make(chan struct{}, 1)
		streams = append(streams, following(v, func() { sent <- struct{}{} }))
		began := time.Now()
		push(streams)
		if took := time.Since(began); took != maxPush {
			t.Errorf("the push took %v, want %v", took, maxPush)
		}
		synctest.Wait()
		if len(sent) == 0 {
			t.Error("a stream that is not slow was not sent the change")
		}
		close(reads)
	})
}

// What changes within PushInterval of the last change that a stream was sent is sent after it.
func TestEarlyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 100 * time.Millisecond
		v := new(view)
		var sent []time.Time
		s := following(v, func() { sent = append(sent, time.Now()) })
		s.server.opts.PushInterval = interval
		for i := range 3 {
			v.set(strconv.Itoa(i))
			if changed := push([]*stream{s}); changed != (i == 0) {
				t.Errorf("change %d: sent at once is %v", i, changed)
			}
			time.Sleep(interval / 4)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(sent) != 2 || sent[1].Sub(sent[0]) != interval {
			t.Errorf("changes were sent at %v, want two, %v apart", sent, interval)
		}
	})
}
