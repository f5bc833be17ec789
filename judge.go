// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// begin and end note that run judges, and that nobody does any more.
func (l *link) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running++
}

func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	renew(&l.checked)
	if l.verdict.down != nil {
		l.changeLocked(func(v *verdict) { v.down = nil })
	}
}

// run checks the way whenever there is a reason, until the context ends or the client is
// closed.
func (l *link) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.client.Ctx(), cancel)()
	var others sync.WaitGroup
	defer others.Wait()
	l.begin()
	defer l.end()
	if conn := l.client.ActiveConnection(); conn != nil {
		others.Go(func() { l.watchConn(ctx, conn) })
	}
	var retry backoff.Backoff
	for ctx.Err() == nil {
		wait, due := l.due()
		if !due {
			_ = backoff.Sleep(ctx, min(wait, l.remind(), l.reportRefusals()), l.wake)
			continue
		}
		if err := l.check(ctx); err == nil {
			retry.Reset()
			l.judge(ctx, nil, 0)
			others.Go(func() { l.endRetired(ctx) })
		} else {
			l.judge(ctx, err, retry.Next())
		}
	}
}

// watchConn follows the state of the client's connection. Becoming READY again is a
// reason to verify everything: clientv3 resumes watches without a word.
func (l *link) watchConn(ctx context.Context, conn *grpc.ClientConn) {
	for wasReady := false; ; {
		state := conn.GetState()
		l.mu.Lock()
		l.conn, l.connAt = state, time.Now()
		if state == connectivity.Ready {
			if wasReady {
				l.suspect = true
				l.heard = time.Time{}
			}
			wasReady, l.retryAt = true, time.Time{}
		}
		l.mu.Unlock()
		notify(l.wake)
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// due reports whether a check is due, and if not, how long until the next one may be.
func (l *link) due() (wait time.Duration, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch l.conn {
	case connectivity.TransientFailure:
		if l.verdict.down == nil {
			return 0, true
		}
		left := l.judged.Add(rejudgeEvery).Sub(now) // the cause may have become another
		return left, left <= 0
	case connectivity.Connecting:
		if l.verdict.down != nil {
			return silenceBound, false // the next state of the connection wakes
		}
		left := l.connAt.Add(connectGrace).Sub(now)
		return left, left <= 0
	}
	if l.verdict.down != nil {
		left := l.retryAt.Sub(now)
		return left, left <= 0
	}
	left := l.heard.Add(silenceBound).Sub(now)
	if l.suspect {
		left = min(left, l.verified.Add(verifyEvery).Sub(now))
	}
	if l.doubted || !l.outage.since.IsZero() { // its end is yet to be seen
		left = 0
	}
	if len(l.retired) > 0 {
		left = min(left, l.judged.Add(rejudgeEvery).Sub(now))
	}
	return left, left <= 0
}

// judge turns the outcome of a check into the verdict. After one that failed the next one
// is due when retry has passed.
func (l *link) judge(ctx context.Context, err error, retry time.Duration) {
	l.mu.Lock()
	was := l.verdict.down
	now := time.Now()
	l.judged, l.doubted = now, false
	switch {
	case ctx.Err() != nil:
		err = nil // it says nothing
	case err == nil && was != nil:
		l.changeLocked(func(v *verdict) { v.down = nil })
	case err != nil && was == nil:
		l.changeLocked(func(v *verdict) { v.down = &Staleness{Since: now, Cause: err} })
	case err != nil && was.Cause.Error() != err.Error():
		l.changeLocked(func(v *verdict) { v.down = &Staleness{Since: was.Since, Cause: err} })
	}
	if err != nil {
		l.retryAt = now.Add(retry)
	}
	renew(&l.checked)
	l.mu.Unlock()
	if ctx.Err() == nil {
		l.report(err)
	}
}

// notify wakes whoever waits on a channel of capacity one.
func notify(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
