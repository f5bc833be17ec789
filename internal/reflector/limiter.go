// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	maxLists  = 16               // lists of one client that may be under way together
	loginIdle = 10 * time.Second // after so long without an answer a list may need a login

	// maxBatch is how many lists are begun together where the server has no lower limit of the
	// operations in a transaction; its default is 128.
	maxBatch = 100
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
	batch    int // how many lists are begun together, at most
	held     int // calls of hold that were not released
	queue    []*turn
	answered time.Time
}

// turn is a place in the queue.
type turn struct {
	keys     *etcdkv.KeyRange // a range whose list another one may begin; nil: none
	ready    chan struct{}    // closed when the turn has come, or the list was begun
	entered  bool             // somebody waits for it
	admitted bool             // it has come
	others   []*turn          // whose lists it is to begin with its own, once it has come

	// Of a list that was begun: its first page, with the floor from before it was asked for,
	// or why there is none. With neither it is to begin by itself.
	page  *etcdkv.Page
	floor etcdconn.Floor
	err   error
}

func newLimiter(password bool) *limiter {
	return &limiter{password: password, limit: maxLists, batch: maxBatch}
}

// reserve returns a turn in the queue, to list a range, nil for none. Another list may begin that
// one from now on. Who does not enter withdraws it.
func (l *limiter) reserve(keys *etcdkv.KeyRange) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reserveLocked(keys)
}

func (l *limiter) reserveLocked(keys *etcdkv.KeyRange) *turn {
	t := &turn{keys: keys, ready: make(chan struct{})}
	l.queue = append(l.queue, t)
	return t
}

// reserveIfHeld reserves a turn while nobody is admitted, for a list that is about to come; nil
// otherwise.
func (l *limiter) reserveIfHeld(keys *etcdkv.KeyRange) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == 0 {
		return nil
	}
	return l.reserveLocked(keys)
}

// enter waits until a turn has come, or another one has begun its list. It reports false if until
// was closed first, and may be called again. A turn is withdrawn if the context ends.
func (l *limiter) enter(ctx context.Context, until <-chan struct{}, t *turn) (bool, error) {
	l.mu.Lock()
	if l.password && l.active == 0 && time.Since(l.answered) > loginIdle {
		l.limit = 1
	}
	t.entered = true
	l.admitLocked()
	l.mu.Unlock()
	select {
	case <-t.ready:
		return true, nil
	case <-until:
		return false, nil
	case <-ctx.Done():
		l.withdraw(t)
		return false, ctx.Err()
	}
}

// withdraw gives up a turn that is not used, nil for none. Who has begun its list goes on for
// others.
func (l *limiter) withdraw(t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t != nil && t.admitted {
		l.active--
		for _, other := range t.others {
			close(other.ready)
		}
		l.admitLocked()
	} else if i := slices.Index(l.queue, t); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
}

func (l *limiter) admitLocked() {
	for l.held == 0 && l.active < l.limit {
		i := slices.IndexFunc(l.queue, func(t *turn) bool { return t.entered })
		if i < 0 {
			return
		}
		t := l.queue[i]
		l.queue = slices.Delete(l.queue, i, i+1)
		t.admitted, t.others = true, l.takeLocked(t)
		close(t.ready)
		l.active++
	}
}

// hold has nobody admitted until release.
func (l *limiter) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held++
}

func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held--
	l.admitLocked()
}

// takeLocked takes the turns of lists from the queue that one that has come is to begin.
func (l *limiter) takeLocked(t *turn) (taken []*turn) {
	if t.keys == nil {
		return nil
	}
	l.queue = slices.DeleteFunc(l.queue, func(t *turn) bool {
		take := t.keys != nil && len(taken) < l.batch-1
		if take {
			taken = append(taken, t)
		}
		return take
	})
	return taken
}

// limitBatch notes that etcd refuses so many lists together.
func (l *limiter) limitBatch(refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch = max(1, refused/2)
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
