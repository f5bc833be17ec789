// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	loadCallers = 4                // concurrent callers
	loadPause   = time.Millisecond // between two calls of a caller, to leave CPU to the servers
)

// load calls the service all the time and counts calls and failures.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	calls  map[string]int // by the server that answered
	first  map[string]time.Time
	last   map[string]time.Time
	failed int
	sample error // the last failure
}

// startLoad calls conn until stop.
func startLoad(conn *grpc.ClientConn) *load {
	l := &load{calls: make(map[string]int), first: make(map[string]time.Time), last: make(map[string]time.Time)}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for range loadCallers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.call(ctx, conn)
				time.Sleep(loadPause)
			}
		})
	}
	return l
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

func (l *load) call(ctx context.Context, conn *grpc.ClientConn) {
	cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var name wrapperspb.StringValue
	err := conn.Invoke(cctx, greeterMethod, &emptypb.Empty{}, &name)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed++
		l.sample = err
		return
	}
	if l.calls[name.Value] == 0 {
		l.first[name.Value] = now
	}
	l.calls[name.Value]++
	l.last[name.Value] = now
}

// tally counts what happened between two resets.
type tally struct {
	Calls  map[string]int
	Failed int
	Sample error
}

// reset returns the counts since the last reset.
func (l *load) reset() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := tally{Calls: l.calls, Failed: l.failed, Sample: l.sample}
	l.calls, l.failed, l.sample = make(map[string]int), 0, nil
	return t
}

// firstCall waits until a server has answered since the last reset and returns the time of its
// first answer.
func (l *load) firstCall(ctx context.Context, server string) (time.Time, error) {
	for {
		l.mu.Lock()
		at, ok := l.first[server]
		ok = ok && l.calls[server] > 0
		l.mu.Unlock()
		if ok {
			return at, nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

// lastCall returns the time of the last answer of a server.
func (l *load) lastCall(server string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[server]
}

func (t tally) total() (n int) {
	for _, calls := range t.Calls {
		n += calls
	}
	return n
}

// pause waits unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
