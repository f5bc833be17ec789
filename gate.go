// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	gateWidth = 16               // lists of one Directory that may be under way together
	gateRest  = 10 * time.Second // after so long without an answer the next list goes alone
)

// gate bounds how many lists of a Directory are under way together. A client with a
// password sends the first one alone: if its token is missing or has expired that costs one
// login, where many lists at once would log in each. Every answer doubles the width. A list
// that fails because of the connection closes the gate to one.
type gate struct {
	password bool

	mu       sync.Mutex
	width    int
	busy     int
	queue    []chan struct{} // closed when it is one's turn
	answered time.Time
}

func newGate(password bool) *gate { return &gate{password: password, width: gateWidth} }

// enter waits for a turn. It reports false if until was closed first.
func (g *gate) enter(ctx context.Context, until <-chan struct{}) (bool, error) {
	turn := make(chan struct{})
	g.mu.Lock()
	if g.password && g.busy == 0 && time.Since(g.answered) > gateRest {
		g.width = 1
	}
	g.queue = append(g.queue, turn)
	g.admitLocked()
	g.mu.Unlock()
	select {
	case <-turn:
		return true, nil
	case <-until:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.queue, turn); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
		return false, ctx.Err()
	}
	return true, nil // it was let in meanwhile
}

func (g *gate) admitLocked() {
	for g.busy < g.width && len(g.queue) > 0 {
		close(g.queue[0])
		g.queue = g.queue[1:]
		g.busy++
	}
}

// answer notes that etcd answered one that is under way.
func (g *gate) answer() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = time.Now()
	g.width = min(2*g.width, gateWidth)
	g.admitLocked()
}

// quiet returns how long etcd has not answered.
func (g *gate) quiet() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.answered)
}

// leave ends a turn, with the error that the list ended with.
func (g *gate) leave(ctx context.Context, err error) {
	if etcdkv.ConcernsRange(err) {
		g.answer()
		err = nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		g.width = 1
	}
	g.busy--
	g.admitLocked()
}
