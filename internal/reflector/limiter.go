// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
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
	queue    []*turn
	answered time.Time
}

// turn is a place in the queue.
type turn struct {
	query    *query        // that another one may begin; nil: none
	ready    chan struct{} // closed when it has come, or the query was begun
	admitted bool
}

// errBegun is why a turn has not come: another query has begun this one.
var errBegun = errors.New("begun with others")

func newLimiter(password bool) *limiter { return &limiter{password: password, limit: maxLists} }

// enter waits for a turn, which may be one to read a query, nil for none. It reports false if
// until was closed first, and fails with errBegun if another one has begun the query.
func (l *limiter) enter(ctx context.Context, until <-chan struct{}, q *query) (bool, error) {
	l.mu.Lock()
	if l.password && l.active == 0 && time.Since(l.answered) > loginIdle {
		l.limit = 1
	}
	if l.active < l.limit { // nobody waits
		l.active++
		l.mu.Unlock()
		return true, nil
	}
	t := &turn{query: q, ready: make(chan struct{})}
	l.queue = append(l.queue, t)
	l.mu.Unlock()
	for {
		select {
		case <-t.ready:
			if !t.admitted {
				return false, errBegun
			}
			return true, nil
		case <-until:
			until = nil
		case <-ctx.Done():
		}
		l.mu.Lock()
		i, admitted := slices.Index(l.queue, t), t.admitted
		if i >= 0 {
			l.queue = slices.Delete(l.queue, i, i+1)
		}
		l.mu.Unlock()
		switch {
		case i >= 0:
			return false, ctx.Err()
		case !admitted && ctx.Err() != nil: // who has begun it goes on for others
			return false, ctx.Err()
		}
	}
}

func (l *limiter) admitLocked() {
	for l.active < l.limit && len(l.queue) > 0 {
		t := l.queue[0]
		if l.queue = l.queue[1:]; len(l.queue) == 0 {
			l.queue = nil
		}
		t.admitted = true
		close(t.ready)
		l.active++
	}
}

// take takes the turns of at most n queries that may be begun by another one, which has to
// close what says that they are ready.
func (l *limiter) take(n int) (taken []*turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = slices.DeleteFunc(l.queue, func(t *turn) bool {
		take := t.query != nil && len(taken) < n
		if take {
			taken = append(taken, t)
		}
		return take
	})
	return taken
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
