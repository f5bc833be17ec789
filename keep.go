// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	keptServices = 128              // how many services without a subscriber are kept
	keptFor      = 30 * time.Minute // how long each of them is
	recallGrace  = 500 * time.Millisecond
	readGrace    = 200 * time.Millisecond // how long etcd may say nothing before a file is read
)

var errNotConfirmed = errors.New("known from before, not confirmed by etcd yet")

// keeper holds the last snapshots of spans that nobody follows, without a goroutine: what
// is too old goes when the keeper is next used. Guarded by Directory.mu.
type keeper map[etcdkv.KeyRange]kept

type kept struct {
	snap *Snapshot // stale
	at   time.Time
}

// put keeps a snapshot, stale from now on, and drops what is too old or too much.
func (k keeper) put(s etcdkv.KeyRange, snap *Snapshot) {
	now := time.Now()
	stale := cmp.Or(snap.stale, &Staleness{Since: now, Cause: errNotConfirmed})
	snap = snap.restated(stale)
	snap.held = nil // it is held for a while, and nobody looks at the time
	k[s] = kept{snap, now}
	oldest := s
	for s, e := range k {
		if now.Sub(e.at) > keptFor {
			delete(k, s)
		} else if e.at.Before(k[oldest].at) {
			oldest = s
		}
	}
	if len(k) > keptServices {
		delete(k, oldest)
	}
}

// take returns what is kept of a span, nil for nothing, and forgets it.
func (k keeper) take(s etcdkv.KeyRange) *Snapshot {
	e, ok := k[s]
	delete(k, s)
	if !ok || time.Since(e.at) > keptFor {
		return nil
	}
	return e.snap
}

// recallLater shows what was known of the span before, kept in the process or else on
// disk, where etcd has not answered in time. It ends with the context.
func (f *feed) recallLater(ctx context.Context) {
	began, state := time.Now(), f.connState()
	grace := recallGrace
	known := f.known() != nil
	if state == connectivity.TransientFailure || known && state != connectivity.Ready { // every process begins without a connection
		grace = 0
	}
	if !known {
		wake := time.AfterFunc(answerGrace, f.wake) // the disk may take longer
		defer wake.Stop()
		f.readCache(ctx)
	}
	f.wake() // of those that wait to hear whether anything is
	if f.known() != nil && backoff.Sleep(ctx, grace-time.Since(began), nil) == nil {
		f.recall()
	}
}

// connState returns the state of the client's connection; Ready where there is none to
// ask, as with the fake.
func (f *feed) connState() connectivity.State {
	if conn := f.dir.client.ActiveConnection(); conn != nil {
		return conn.GetState()
	}
	return connectivity.Ready
}

// readCache reads what is kept on disk. It begins once etcd has said nothing for a while:
// reading a large file would take the processor from what etcd sends.
func (f *feed) readCache(ctx context.Context) {
	for {
		wait := readGrace - f.quiet()
		if snap, _ := f.latest(); snap != nil {
			return
		}
		if wait <= 0 {
			break
		}
		if backoff.Sleep(ctx, wait, nil) != nil {
			return
		}
	}
	var cached *Snapshot
	if f.dir.cache.do(ctx, func() { cached = f.dir.cache.load(f.blank.prefix) }) && cached != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.snap == nil {
			f.before = cached
			f.dir.log.Info("etcd has not answered yet; the cache has what was last known", "prefix", cached.prefix,
				"endpoints", len(cached.instances), "saved", cached.stale.Since)
		}
	}
}

// known returns the newest that is known, shown or not; nil for nothing.
func (f *feed) known() *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cmp.Or(f.snap, f.before)
}

// kept returns what was known before the feed began, while there is nothing better.
func (f *feed) kept() *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.before
}

// recalls reports whether something is known from before, or still looked for, and not shown.
func (f *feed) recalls() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snap == nil && (!f.remembered || f.before != nil)
}

// recall shows what was known before, where there is nothing newer.
func (f *feed) recall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.snap == nil && f.before != nil {
		f.publishLocked(f.before, nil)
	}
}
