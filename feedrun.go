// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	configPause  = 5 * time.Minute        // on average, between tries to read a service config without the right to
	refusedEvery = 250 * time.Millisecond // on average, between tries of all services that may not be read
	grantedEvery = 20 * time.Millisecond  // the same, once one of them may
	steadyAfter  = time.Second            // a watch that lasted so long was a good one
)

// run lists and watches until the context ends or the client is closed. Whatever ends a
// watch, it is opened again; a list comes first only where the watch cannot go on from
// where it was.
func (f *feed) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.dir.client.Ctx(), cancel)()
	defer f.dir.link.forget(f)
	defer time.AfterFunc(answerGrace, func() { f.remind(ctx) }).Stop()
	if f.kept() != nil || f.saver != nil {
		var recalling sync.WaitGroup
		recalling.Go(func() { f.recallLater(ctx) })
		defer recalling.Wait()
		defer cancel()
	}
	f.audited = time.Now().Add(f.auditPause())
	v, _ := f.dir.link.current()
	f.history = v.history
	for f.awaitLink(ctx) == nil {
		err := f.follow(ctx)
		f.flush()
		if ctx.Err() == nil {
			f.retreat(ctx, err)
		}
	}
	if f.dir.client.Ctx().Err() != nil {
		f.end(etcdkv.ErrClientClosed)
	}
}

// awaitLink waits while the link is down: it alone asks whether etcd is back. Where there is
// no leader, a member is asked once for what it has.
func (f *feed) awaitLink(ctx context.Context) error {
	f.expireHold()
	for {
		v, changed := f.dir.link.current()
		if v.down == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		cause := v.down.Cause
		if f.resume == 0 && f.asked != v.down && errors.Is(cause, rpctypes.ErrNoLeader) {
			f.asked = v.down
			cause = cmp.Or(f.listBehind(ctx, cause), cause)
		}
		f.fail(cause)
		if err := f.rest(ctx, backoff.Never, changed); err != nil {
			return err
		}
	}
}

// rest sleeps, and lets go of what is held when its time has come.
func (f *feed) rest(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	until := time.Now().Add(d)
	for !f.holding.IsZero() && f.holding.Before(until) {
		if err := backoff.Sleep(ctx, time.Until(f.holding), wake); err != nil || time.Now().Before(f.holding) {
			return err // or woken
		}
		f.expireHold()
	}
	return backoff.Sleep(ctx, time.Until(until), wake)
}

// aside does work that may take long, and lets go of what is held when its time has come.
// The work has a goroutine of its own, whose stack does not stay as long as the feed.
func (f *feed) aside(work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	_ = f.rest(context.Background(), backoff.Never, done)
	<-done
}

// retreat waits until it makes sense to try again after a watch or a list ended with err.
func (f *feed) retreat(ctx context.Context, err error) {
	link := f.dir.link
	if !f.opened.IsZero() && time.Since(f.opened) >= steadyAfter {
		f.retry.Reset()
	}
	f.opened = time.Time{}
	compacted := errors.Is(err, rpctypes.ErrCompacted) && f.retry.Failures() < 2
	switch {
	case errors.Is(err, errStreamReplaced), errors.Is(err, errDrifted), errors.Is(err, errNewHistory):
		return
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		f.fail(err)
		f.awaitGrant(ctx)
		return
	case compacted:
		f.retry.Next()
		return
	}
	f.aside(func() { link.doubt(ctx) })
	if v, _ := link.current(); v.down != nil || ctx.Err() != nil {
		return
	}
	atOnce := f.retry.Failures() == 0 && f.resume > 0 // the first time that a watch ended
	if wait := f.retry.Next(); !atOnce {
		f.fail(err)
		_ = f.rest(ctx, wait, link.recovery())
	}
}

// awaitGrant waits before a span that may not be read is asked for again. The more there are
// the longer each waits, so that all together ask no more often, not after an outage either.
// When one of them may be read, the others look soon.
func (f *feed) awaitGrant(ctx context.Context) {
	link := f.dir.link
	link.access(f, accessRefused)
	for down := true; down && ctx.Err() == nil; {
		refused, granted := link.refused()
		all := time.Duration(refused) * refusedEvery
		wait := max(f.retry.Next(), all/2+backoff.Jitter(all))
		if f.config() {
			wait = configPause/2 + backoff.Jitter(configPause) // most roles that cannot read it never will
		}
		until := time.Now().Add(wait)
		_ = f.rest(ctx, wait, granted)
		if left := time.Until(until); left > 0 {
			_ = f.rest(ctx, min(left, backoff.Jitter(time.Duration(refused)*grantedEvery)), nil)
		}
		v, changed := link.current()
		if down = v.down != nil; down {
			_ = f.rest(ctx, backoff.Never, changed)
		}
	}
}

// config reports whether the feed is of a service config.
func (f *feed) config() bool { return strings.HasPrefix(f.span.Key, ConfigPrefix) }

// service reports whether the feed is of instances.
func (f *feed) service() bool { return f.span.End != "" && !f.config() }

// list reads the whole span and publishes it as one difference.
func (f *feed) list(ctx context.Context) error {
	link := f.dir.link
	before := link.seen()
	var got listing
	var err error
	f.aside(func() { got, err = f.dir.lister.list(ctx, f.span, false, f) })
	if err != nil {
		return fmt.Errorf("list %q: %w", f.span.Key, err)
	}
	f.history = link.sawAnswer(got.revision, got.term, before)
	link.access(f, accessGranted)
	if v, _ := link.current(); v.history != f.history {
		return errNewHistory // it began meanwhile: the answer may be of either
	}
	f.publish(f.adopt(got), nil)
	f.resume, f.revision = got.revision+1, got.revision
	return nil
}

// listBehind takes what a member without a leader has, as stale for that cause, if it is not
// older than what was seen.
func (f *feed) listBehind(ctx context.Context, cause error) error {
	link := f.dir.link
	before := link.seen()
	var got listing
	var err error
	f.aside(func() { got, err = f.dir.lister.list(ctx, f.span, true, f) })
	if kept := f.kept(); err == nil && (got.revision < before.revision || kept != nil && got.revision < kept.revision) {
		err = fmt.Errorf("member is behind, at revision %d: %w", got.revision, cause)
	}
	if err != nil {
		return fmt.Errorf("list %q: %w", f.span.Key, err)
	}
	f.history = before.history
	if v, _ := link.current(); v.history != f.history {
		return errNewHistory
	}
	shown, _ := f.latest()
	snap := f.adopt(got)
	link.sawRevision(got.revision, f.history)
	if shown == nil || shown.stale == nil || shown.revision != snap.revision {
		f.publish(snap.restated(&Staleness{Since: time.Now(), Cause: cause}), nil)
	}
	return nil
}

// hears notes that an answer to a list has arrived.
func (f *feed) hears() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = time.Now()
}

// adopt makes the next snapshot of a list.
func (f *feed) adopt(got listing) *Snapshot {
	old := cmp.Or(f.known(), f.blank)
	clear(f.pending)
	snap := old.relisted(got, f.history)
	if f.lost != nil && f.revision > 0 { // what went before this feed began may be long gone
		for _, c := range snap.Diff(old) {
			now := entry{instance: c.New}
			if i, rejected := find(snap.rejected, c.Key); rejected {
				now.rejected = snap.rejected[i]
			}
			f.lost.note(c.Key, c.Old, now, f.holdUntil())
		}
	}
	f.setHeld(snap)
	return snap
}
