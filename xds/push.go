// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// maxPush is the longest that a push waits for streams.
const maxPush = 250 * time.Millisecond

// turn is what a stream gives back once it has looked for changes, and sent what there was. A nil
// turn is nobody's.
type turn struct {
	taken chan struct{}
	sent  atomic.Bool // a change, by some stream
}

func (t *turn) done(sent bool) {
	if t == nil {
		return
	}
	if sent {
		t.sent.Store(true)
	}
	<-t.taken
}

// pushLocked has the newest content pushed to the streams that follow the service, at once or
// after a rest from the last push. A fifth of the time goes to pushes, so that changes are folded
// as their fan-out costs: the scenario xds/burst of module bench shows it.
func (s *service) pushLocked() {
	if s.newest == s.latest.Load() || s.pushing || s.closed {
		return
	}
	s.latest.Store(s.newest)
	s.pushing = true
	known := s.newest.snap != nil // else the first answer is still to come
	streams := slices.Collect(maps.Keys(s.streams))
	s.pushes.Go(func() {
		began := time.Now()
		sent := push(streams)
		rest := max(s.server.opts.PushInterval, 4*time.Since(began))
		s.mu.Lock()
		defer s.mu.Unlock()
		if sent && known {
			s.rest = time.AfterFunc(rest, s.rested)
			return
		}
		s.pushing = false
		s.pushLocked()
	})
}

func (s *service) rested() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushing = false
	s.pushLocked()
}

// endPushes waits for a push that is under way, and lets none begin.
func (s *service) endPushes() {
	s.mu.Lock()
	s.closed = true
	if s.rest != nil {
		s.rest.Stop()
	}
	s.mu.Unlock()
	s.pushes.Wait()
}

// push wakes streams by turns, so that a new stream, which needs none, waits for few of them. It
// returns when all have sent what is due, and reports whether any has. A stream that is sending, or
// is not to be sent anything yet, gives its turn back at once, and after maxPush none is waited for.
func push(streams []*stream) (sent bool) {
	over := make(chan struct{})
	defer time.AfterFunc(maxPush, func() { close(over) }).Stop()
	t := &turn{taken: make(chan struct{}, 8*runtime.GOMAXPROCS(0))}
	for _, s := range streams {
		select {
		case t.taken <- struct{}{}:
			if !s.wake(t) {
				t.done(false)
			}
		case <-over:
			s.wake(nil)
		}
	}
	for range cap(t.taken) { // those that are still out
		select {
		case t.taken <- struct{}{}:
		case <-over:
			return true
		}
	}
	return t.sent.Load()
}

// wake has the stream look for changes, unless it is about to. It reports whether the stream has
// taken the turn.
func (s *stream) wake(t *turn) bool {
	select {
	case s.wakeup <- t:
		return true
	default:
		return false
	}
}

// wakeNoMore gives back the turn that the stream has, and lets it take none from then on.
func (s *stream) wakeNoMore() {
	for {
		select {
		case t := <-s.wakeup:
			t.done(false)
		case s.wakeup <- nil:
			return
		}
	}
}
