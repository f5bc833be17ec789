// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

const (
	// maxViews bounds what one user can have rendered at a time.
	maxViews = 500
	// linger is how long a view goes on without readers, who may come back, and lingerUnread how
	// long one that no stream has read yet: a page's stream begins after the page.
	linger       = 10 * time.Second
	lingerUnread = 2 * time.Second
	// minGap is the least time between two frames of a view.
	minGap = 250 * time.Millisecond
	// costFactor bounds what a view that is expensive to render takes of a processor, to a tenth.
	costFactor = 9
)

// rendering bounds how many views are rendered at a time, whoever has them open, so that half of
// the processors are left to whatever else the process does.
var rendering = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

var (
	errBusy   = errors.New("too many different pages are open; close some, or try again in a minute")
	errClosed = errors.New("the console is closing")
)

// view is what a page is about. It shows frames until the context ends.
type view interface {
	follow(ctx context.Context, show func(frame))
}

// hub has the views that are open, each once.
type hub struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	replaying chan struct{} // bounds the views that read etcd's history at a time, to one

	mu    sync.Mutex
	views map[string]*openView
}

type openView struct {
	*live
	cancel context.CancelFunc
	users  int
	read   bool        // by a stream
	idle   *time.Timer // nil while there are users
}

func newHub() *hub {
	h := &hub{views: make(map[string]*openView), replaying: make(chan struct{}, 1)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// close ends all views and joins them.
func (h *hub) close() {
	h.mu.Lock()
	h.cancel()
	for _, v := range h.views {
		if v.idle != nil {
			v.idle.Stop()
		}
	}
	h.mu.Unlock()
	h.running.Wait()
}

// open returns the view of a key, which begins if nobody has it open. The caller calls release.
func (h *hub) open(key string, begin view, stream bool) (l *live, release func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.views[key]
	switch {
	case h.ctx.Err() != nil:
		return nil, nil, errClosed
	case v == nil && len(h.views) >= maxViews:
		return nil, nil, errBusy
	case v == nil:
		ctx, cancel := context.WithCancel(h.ctx)
		v = &openView{live: newLive(), cancel: cancel}
		h.views[key] = v
		h.running.Go(func() { begin.follow(ctx, v.show) })
	case v.idle != nil:
		v.idle.Stop()
		v.idle = nil
	}
	v.users++
	v.read = v.read || stream
	return v.live, sync.OnceFunc(func() { h.release(key, v) }), nil
}

func (h *hub) release(key string, v *openView) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v.users--
	if v.users > 0 || h.ctx.Err() != nil {
		return
	}
	wait := lingerUnread
	if v.read {
		wait = linger
	}
	var idle *time.Timer
	idle = time.AfterFunc(wait, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if v.idle == idle { // nobody has come in between
			delete(h.views, key)
			v.cancel()
		}
	})
	v.idle = idle
}

// pace calls render at once and after each wake, though no sooner than minGap after the last call
// and so that it takes no more than a tenth of the time, until the context ends. It renders while
// there is room for it: see rendering.
func pace(ctx context.Context, wake <-chan struct{}, render func()) {
	for {
		select {
		case rendering <- struct{}{}:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		render()
		<-rendering
		rest := max(minGap, costFactor*time.Since(began))
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}

// poke wakes a goroutine through a channel of capacity one.
func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// every pokes a channel from time to time, until the context ends.
func every(ctx context.Context, period time.Duration, wake chan<- struct{}) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			poke(wake)
		case <-ctx.Done():
			return
		}
	}
}
