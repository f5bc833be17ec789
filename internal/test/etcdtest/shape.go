// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"sync"
	"time"
)

// shape is how a Link slows down what it forwards.
type shape struct {
	mu sync.Mutex
	settings
	changed chan struct{} // closed and replaced when the settings change
}

type settings struct {
	frozen bool
	delay  time.Duration
	rate   int          // bytes a second, 0 without a limit
	free   [2]time.Time // when the data sent in each direction have left
}

func (s *shape) set(f func(*shape)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shape) get() (settings, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings, s.changed
}

// waitThawed blocks while the link is frozen. It returns false if the connection has ended.
func (s *shape) waitThawed(ctx context.Context) bool {
	for {
		now, changed := s.get()
		if !now.frozen {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// waitDue blocks until data received at since are due. It returns false if the connection has
// ended.
func (s *shape) waitDue(ctx context.Context, since time.Time) bool {
	for {
		if !s.waitThawed(ctx) {
			return false
		}
		now, changed := s.get()
		if now.frozen {
			continue
		}
		wait := time.Until(since.Add(now.delay))
		if wait <= 0 {
			return ctx.Err() == nil
		}
		if !pass(ctx, wait, changed) {
			return false
		}
	}
}

// portion is how much is transmitted at once: the data of a twentieth of a second, so that a low
// limit does not cause bursts.
func (s *shape) portion() int {
	now, _ := s.get()
	if now.rate == 0 {
		return 64 << 10
	}
	return max(1, now.rate/20)
}

// transmit waits as long as n bytes take at the limit. A new limit applies to later bytes.
func (s *shape) transmit(ctx context.Context, way, n int) bool {
	s.mu.Lock()
	if s.rate == 0 {
		s.mu.Unlock()
		return ctx.Err() == nil
	}
	rate := s.rate
	if now := time.Now(); s.free[way].Before(now) {
		s.free[way] = now
	}
	s.free[way] = s.free[way].Add(time.Duration(n) * time.Second / time.Duration(rate))
	until := s.free[way]
	s.mu.Unlock()
	for {
		now, changed := s.get()
		wait := time.Until(until)
		if wait <= 0 || now.rate != rate {
			return ctx.Err() == nil
		}
		if !pass(ctx, wait, changed) {
			return false
		}
	}
}

// pass waits for a time or for a change. It returns false if the connection has ended.
func pass(ctx context.Context, wait time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// queueBytes bounds the data under way in one direction of a connection. It is far more than tests
// send within a delay, so that a delay does not limit the throughput.
const queueBytes = 64 << 20

// queue has the data under way, in order.
type queue struct {
	mu    sync.Mutex
	all   []chunk
	bytes int
	news  chan struct{} // put wakes take
	space chan struct{} // take wakes put
}

type chunk struct {
	since time.Time
	data  []byte // empty at the end of the connection
}

func newQueue() *queue {
	return &queue{news: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

// put appends a copy of data. It returns false if the connection has ended.
func (q *queue) put(ctx context.Context, data []byte) bool {
	c := chunk{time.Now(), append([]byte(nil), data...)}
	for {
		q.mu.Lock()
		fits := q.bytes < queueBytes
		if fits {
			q.all = append(q.all, c)
			q.bytes += len(c.data)
		}
		q.mu.Unlock()
		if fits {
			notify(q.news)
			return true
		}
		select {
		case <-q.space:
		case <-ctx.Done():
			return false
		}
	}
}

// take waits for the oldest chunk and returns it. It returns false if the connection has ended.
func (q *queue) take(ctx context.Context) (chunk, bool) {
	for {
		q.mu.Lock()
		if len(q.all) > 0 {
			c := q.all[0]
			q.all[0], q.all = chunk{}, q.all[1:]
			q.bytes -= len(c.data)
			q.mu.Unlock()
			notify(q.space)
			return c, true
		}
		q.mu.Unlock()
		select {
		case <-q.news:
		case <-ctx.Done():
			return chunk{}, false
		}
	}
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
