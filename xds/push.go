// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"runtime"
	"time"
)

// maxPush is the longest that a push waits for streams.
const maxPush = 250 * time.Millisecond

// turn is what a stream gives back by done once it has looked for changes, and sent what there
// was. A nil turn is nobody's.
type turn chan struct{}

func (t turn) done() {
	if t != nil {
		<-t
	}
}

// push wakes streams by turns, and returns when all have sent what is due. A new stream, which
// needs no turn, waits for few of them, and a Directory, which delivers no faster than can be
// taken in, folds changes as their fan-out costs: both show in the scenario xds/burst of module
// bench. A stream that is sending, or is not to be sent anything yet, gives its turn back at once,
// and after maxPush none is waited for.
func push(streams []*stream) {
	over := make(chan struct{})
	defer time.AfterFunc(maxPush, func() { close(over) }).Stop()
	turns := make(turn, 8*runtime.GOMAXPROCS(0))
	for _, s := range streams {
		select {
		case turns <- struct{}{}:
			if !s.wake(turns) {
				turns.done()
			}
		case <-over:
			s.wake(nil)
		}
	}
	for range cap(turns) { // those that are still out
		select {
		case turns <- struct{}{}:
		case <-over:
			return
		}
	}
}

// wake has the stream look for changes, unless it is about to. It reports whether the stream has
// taken the turn.
func (s *stream) wake(t turn) bool {
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
			t.done()
		case s.wakeup <- nil:
			return
		}
	}
}
