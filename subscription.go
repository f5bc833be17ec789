// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const answerGrace = time.Second // how long a first snapshot may take before the wait is explained

// Subscription is one consumer's view of a feed. Its consumer may miss snapshots in
// between, never the last one. Not for use by several goroutines at once, but for
// Close, Latest, Err and Refresh.
type Subscription struct {
	feed    *feed
	changed chan struct{} // capacity 1
	done    chan struct{} // closed by Close, or by the Directory's

	// Owned by the consumer.
	got      *Snapshot // last returned by Next
	reported string    // last error returned by Next
	returned time.Time // when Next returned got
}

// Changed is woken, at least once, after Latest or Err have changed.
func (s *Subscription) Changed() <-chan struct{} { return s.changed }

// Latest returns the newest snapshot, nil before the first.
func (s *Subscription) Latest() *Snapshot {
	snap, _ := s.feed.latest()
	return snap
}

// Err says why there is no snapshot yet: nil once there is one, and for the first
// second, or while etcd's answer is arriving.
func (s *Subscription) Err() error {
	snap, err := s.feed.latest()
	if snap != nil || err != nil {
		return err
	}
	if s.feed.recalls() {
		return nil // better than a reason: what was known before is about to be shown
	}
	if v, _ := s.feed.dir.link.current(); v.down != nil {
		return v.down.Cause
	}
	if s.feed.quiet() >= answerGrace {
		return fmt.Errorf("%w at %s within %v", ErrNoAnswer, strings.Join(s.feed.dir.client.Endpoints(), ", "), answerGrace)
	}
	return nil
}

// Next waits for a snapshot that it has not returned yet and returns the newest.
// Before the first it returns instead, once each, the reasons why there is none yet;
// call it again to go on waiting. It ends with the context's error, or with ErrClosed
// once the subscription or its Directory was closed.
//
// Next conflates: it returns a first change at once and holds the following one back
// by twice the time that its caller spent on the last, at most 250 ms.
func (s *Subscription) Next(ctx context.Context) (*Snapshot, error) {
	if s.got != nil {
		pace := min(2*time.Since(s.returned), paceCeiling)
		if err := sleep(ctx, pace, nil); err != nil {
			return nil, err
		}
	}
	for {
		snap := s.Latest()
		if snap != nil && snap != s.got {
			s.got, s.returned = snap, time.Now()
			return snap, nil
		}
		var tick <-chan time.Time
		if s.got == nil {
			if err := s.Err(); err != nil && err.Error() != s.reported {
				s.reported = err.Error()
				return nil, err
			}
			tick = time.After(answerGrace)
		}
		select {
		case <-s.changed:
		case <-tick:
		case <-s.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Refresh has the feed compare itself with etcd, soon and at most once in 10 s: a
// hint that something looks out of date.
func (s *Subscription) Refresh() { s.feed.refresh() }

// Close ends the subscription; the last one of a feed ends its watch and joins it.
// Calling it again does nothing.
func (s *Subscription) Close() {
	if s.feed.unsubscribe(s) {
		s.feed.dir.release(s.feed)
	}
}
