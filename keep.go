// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"errors"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	keptServices = 128              // how many services without a subscriber are kept
	keptFor      = 30 * time.Minute // how long each of them is
	recallGrace  = 500 * time.Millisecond
)

var errNotConfirmed = errors.New("known from before, not confirmed by etcd yet")

// keeper holds the last snapshots of spans that nobody follows, without a goroutine: what
// is too old goes when the keeper is next used. Guarded by Directory.mu.
type keeper map[span]kept

type kept struct {
	snap *Snapshot // stale
	at   time.Time
}

// put keeps a snapshot, stale from now on, and drops what is too old or too much.
func (k keeper) put(s span, snap *Snapshot) {
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
func (k keeper) take(s span) *Snapshot {
	e, ok := k[s]
	delete(k, s)
	if !ok || time.Since(e.at) > keptFor {
		return nil
	}
	return e.snap
}

// remember finds what was known of a new feed's span before: kept in the process, else on
// disk. It returns how long etcd may take before that is shown.
func (f *feed) remember() (grace time.Duration) {
	state := connectivity.Ready // where there is no connection to ask, as the fake's
	if conn := f.dir.client.ActiveConnection(); conn != nil {
		state = conn.GetState()
	}
	if f.before == nil && f.saver != nil {
		cached := f.dir.cache.load(f.blank.prefix)
		if cached == nil {
			return recallGrace
		}
		f.mu.Lock()
		f.before = cached
		f.mu.Unlock()
		if state == connectivity.Idle || state == connectivity.Connecting {
			return recallGrace // every process begins so
		}
	}
	if state == connectivity.Ready {
		return recallGrace
	}
	return 0
}

// known returns the newest that is known, shown or not; nil for nothing.
func (f *feed) known() *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cmp.Or(f.snap, f.before)
}

// recalls says whether something is known from before, or still looked for, and not shown.
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
