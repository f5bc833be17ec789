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
	queue    []*turn
	answered time.Time
}

// turn is a place in the queue.
type turn struct {
	keys     *etcdkv.KeyRange // a range whose list another one may begin; nil: none
	ready    chan struct{}    // closed when the turn has come, or the list was begun
	admitted bool

	// Of a list that was begun: its first page, or why there is none. With neither it is to
	// begin by itself.
	page *etcdkv.Page
	err  error
}

func newLimiter(password bool) *limiter { return &limiter{password: password, limit: maxLists} }

// enter waits for a turn, to list a range, nil for none, or until another one has begun that
// list. It returns nil if until was closed first.
func (l *limiter) enter(ctx context.Context, until <-chan struct{}, keys *etcdkv.KeyRange) (*turn, error) {
	t := &turn{keys: keys}
	l.mu.Lock()
	if l.password && l.active == 0 && time.Since(l.answered) > loginIdle {
		l.limit = 1
	}
	if l.active < l.limit { // nobody waits
		l.active++
		t.admitted = true
		l.mu.Unlock()
		return t, nil
	}
	t.ready = make(chan struct{})
	l.queue = append(l.queue, t)
	l.mu.Unlock()
	select {
	case <-t.ready:
		return t, nil
	case <-until:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.admitted { // meanwhile
		return t, nil
	}
	if i := slices.Index(l.queue, t); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	} // else who has begun the list goes on for others
	return nil, ctx.Err()
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

// take takes the turns of at most n lists, for another one to begin them.
func (l *limiter) take(n int) (taken []*turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = slices.DeleteFunc(l.queue, func(t *turn) bool {
		take := t.keys != nil && len(taken) < n
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
