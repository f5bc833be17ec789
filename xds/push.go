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

// push has streams send what is due, several at a time, and reports whether any has sent a change. It
// returns when all have, or after maxPush: then none waits for another any more.
func push(streams []*stream) (sent bool) {
	var taken atomic.Int64
	var changed atomic.Bool
	each := func(send func(*stream)) {
		for i := taken.Add(1); i <= int64(len(streams)); i = taken.Add(1) {
			send(streams[i-1])
		}
	}
	workers := min(len(streams), 8*runtime.GOMAXPROCS(0))
	done := make(chan struct{}, workers)
	for range workers {
		go func() {
			each(func(s *stream) {
				if s.send(s.next()) {
					changed.Store(true)
				}
				runtime.Gosched() // to gRPC's writers and to new streams: the scenario xds/burst of module bench shows it
			})
			done <- struct{}{}
		}()
	}
	over := time.After(maxPush)
	for range workers {
		select {
		case <-done:
		case <-over:
			each(func(s *stream) { go s.send(s.next()) })
			return true
		}
	}
	return changed.Load()
}
