// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	maxLists  = 16               // lists of one client that may be under way together
	loginIdle = 10 * time.Second // after so long without an answer a list may need a login
)

// limiter bounds how many lists are under way together. A client with a password sends the
// first one alone: if its token is missing or has expired that costs one login, where many
// lists at once would log in each. Every answer doubles the limit. A list that fails because
// of the connection sets it to one.
type limiter struct {
	password bool

	mu       sync.Mutex
	limit    int
	active   int
	queue    []chan struct{} // each is closed when it is its turn
	answered time.Time
}

func newLimiter(password bool) *limiter { return &limiter{password: password, limit: maxLists} }

// enter waits for a turn. It reports false if until was closed first.
func (l *limiter) enter(ctx context.Context, until <-chan struct{}) (bool, error) {
	l.mu.Lock()
	if l.password && l.active == 0 && time.Since(l.answered) > loginIdle {
		l.limit = 1
	}
	if l.active < l.limit { // nobody waits
		l.active++
		l.mu.Unlock()
		return true, nil
	}
	turn := make(chan struct{})
	l.queue = append(l.queue, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return true, nil
	case <-until:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, turn); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
		return false, ctx.Err()
	}
	return true, nil // it was admitted meanwhile
}

func (l *limiter) admitLocked() {
	for l.active < l.limit && len(l.queue) > 0 {
		close(l.queue[0])
		if l.queue = l.queue[1:]; len(l.queue) == 0 {
			l.queue = nil
		}
		l.active++
	}
}

// answer notes that etcd answered one that is under way.
func (l *limiter) answer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = time.Now()
	l.limit = min(2*l.limit, maxLists)
	l.admitLocked()
}

// silence returns how long etcd has not answered.
func (l *limiter) silence() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.answered)
}

// leave ends a turn, with the error that the list ended with.
func (l *limiter) leave(ctx context.Context, err error) {
	if etcdkv.ConcernsRange(err) {
		l.answer()
		err = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		l.limit = 1
	}
	l.active--
	l.admitLocked()
}
