// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/preallocate"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// maxPending is how many updates have memory that is kept for the next ones.
const maxPending = 1000

// maxLogged is how many changes are logged one by one where many are published at once.
const maxLogged = 20

// store turns what a Reflector finds in a key range into snapshots, and publishes those to a
// topic. It implements reflector.Store.
type store struct {
	topic        *topic.Topic[Snapshot]
	empty        *Snapshot // with the prefix
	preservation SelfPreservation
	log          *slog.Logger

	counts storeCounts
	tally  tally

	// mu guards the content, which the Reflector or the expiry of a retained instance
	// changes. Readers use the topic.
	mu           sync.Mutex
	pending      []update    // applied and not published, in their order
	received     time.Time   // when the first of them was
	preallocated []*Instance // for the next snapshot; see BenchmarkApply
	synced       bool        // a list was published
	lost         losses      // nil without SelfPreservation
	expiry       *time.Timer // when what is retained changes; nil: nothing is
	began        *Snapshot   // with which self-preservation began, to be logged; nil: none
	changes      []Change    // published, to be logged; nil unless such details are
	drained      drainedKeys
	stopped      bool
}

func newStore(snapshots *topic.Topic[Snapshot], prefix string, preservation SelfPreservation, log *slog.Logger) *store {
	s := &store{topic: snapshots, empty: &Snapshot{prefix: prefix}, preservation: preservation, log: log}
	if preservation.Share > 0 {
		s.lost = make(losses)
	}
	return s
}

// Totals are what became of the events of a service, or of all.
type Totals struct {
	Events            uint64 // received from the watch
	Published         uint64 // snapshots published
	Conflated         uint64 // events published together with the one before, not by themselves
	SelfPreservations uint64 // times that SelfPreservation began
}

func (s *store) totals() Totals {
	return Totals{s.counts.events.Load(), s.counts.published.Load(), s.counts.conflated.Load(), s.counts.preservations.Load()}
}

// Plus returns the sum of both.
func (t Totals) Plus(o Totals) Totals {
	return Totals{t.Events + o.Events, t.Published + o.Published, t.Conflated + o.Conflated, t.SelfPreservations + o.SelfPreservations}
}

// Minus returns what t has more than o.
func (t Totals) Minus(o Totals) Totals {
	return Totals{t.Events - o.Events, t.Published - o.Published, t.Conflated - o.Conflated, t.SelfPreservations - o.SelfPreservations}
}

// storeCounts are cumulative; Totals describes them.
type storeCounts struct {
	events, published, conflated, preservations atomic.Uint64
}

// tally has the numbers of instances of the snapshot that was last asked for: counting 100,000
// takes some 20 ms.
type tally struct {
	mu   sync.Mutex
	of   *Snapshot
	have InstanceCounts
}

func (t *tally) count(snap *Snapshot) InstanceCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of != snap {
		t.of, t.have = snap, snap.Count(nil)
	}
	return t.have
}

// stop ends the expiry of what is retained.
func (s *store) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
}

// storeList is a list for a store. It implements reflector.List.
type storeList struct {
	listing
	store *store
}

// NewList implements reflector.Store.
func (s *store) NewList() reflector.List {
	return &storeList{listing: listing{prefix: s.empty.prefix}, store: s}
}

// Replace implements reflector.List: it publishes the list as a difference.
func (l *storeList) Replace(at reflector.Version, stale error) bool {
	s := l.store
	s.mu.Lock()
	defer s.unlock()
	if fallback := s.topic.Unconfirmed(); stale != nil && fallback != nil && fallback.revision > at.Revision {
		return false
	}
	old := s.topic.Known()
	s.dropPendingLocked()
	snap := cmp.Or(old, s.empty).replacedBy(&l.listing, at)
	if s.synced { // what went before is long gone
		for _, c := range snap.Diff(old) {
			now := entry{instance: c.New}
			if i, invalid := find(snap.invalid, c.Key); invalid {
				now.invalid = snap.invalid[i]
			}
			s.observeLocked(c.Key, c.Old, now)
		}
	}
	s.synced = s.synced || stale == nil
	s.retainLocked(snap)
	if stale == nil {
		s.publishLocked(snap)
	} else if shown := s.topic.Latest(); shown == nil || shown.stale == nil || shown.revision != snap.revision {
		s.publishLocked(snap.withStaleness(&Staleness{Since: time.Now(), Cause: stale}))
	}
	return true
}

// Differences implements reflector.List.
func (l *storeList) Differences() map[string]reflector.Difference {
	shown := l.store.topic.Latest()
	stored := shown.replacedBy(&l.listing, reflector.Version{Epoch: shown.epoch})
	diffs := make(map[string]reflector.Difference)
	for _, c := range stored.Diff(shown) {
		diffs[c.Key] = reflector.Difference{Store: c.Old.summary(), Etcd: c.New.summary()}
	}
	differing(shown.invalid, stored.invalid, diffs, func(i *Invalid) string { return fmt.Sprintf("an invalid value, ModRevision %d", i.ModRevision) })
	differing(shown.configs, stored.configs, diffs, (*ServiceConfig).summary)
	return diffs
}

// differing adds the keys to diffs that are in one of two slices only, or differ in their
// summaries.
func differing[E keyed](shown, stored []E, diffs map[string]reflector.Difference, summary func(E) string) {
	for _, e := range shown {
		if _, found := find(stored, e.key()); !found {
			diffs[e.key()] = reflector.Difference{Store: summary(e), Etcd: "nothing"}
		}
	}
	for _, e := range stored {
		was := "nothing"
		if i, found := find(shown, e.key()); found {
			was = summary(shown[i])
		}
		if now := summary(e); was != now {
			diffs[e.key()] = reflector.Difference{Store: was, Etcd: now}
		}
	}
}

// summary tells writes of a key apart, without the metadata, which may be large or secret.
func (i *Instance) summary() string {
	if i == nil {
		return "nothing"
	}
	sum := sha256.Sum256(i.Metadata)
	return fmt.Sprintf("%s, ModRevision %d, CreateRevision %d, lease %x, metadata of hash %s", i.Addr, i.ModRevision, i.CreateRevision,
		int64(i.Lease), hex.EncodeToString(sum[:4]))
}

// Apply implements reflector.Store.
func (s *store) Apply(events []*clientv3.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.events.Add(uint64(len(events)))
	if len(s.pending) == 0 {
		s.received = time.Now()
	}
	for _, ev := range events {
		s.pending = append(s.pending, update{textOf(ev.Kv.Key), ev.Kv.ModRevision, decodeEvent(ev, s.empty.prefix)})
	}
}

// foldLocked returns the last of the pending updates of each key, sorted by key, and records which
// instances went since a snapshot. What it returns is in the memory of pending, which is to be dropped.
func (s *store) foldLocked(shown *Snapshot) []update {
	slices.SortFunc(s.pending, func(a, b update) int { // a stable sort takes twice as long for keys in random order
		if order := strings.Compare(a.key, b.key); order != 0 {
			return order
		}
		return cmp.Compare(a.revision, b.revision)
	})
	folded := s.pending[:0]
	for _, u := range s.pending {
		last := len(folded) - 1
		again, gone := last >= 0 && folded[last].key == u.key, u.entry == entry{}
		if s.lost != nil || gone {
			var old *Instance
			if again {
				old = folded[last].instance
			} else {
				old = shown.Instance(u.key)
			}
			if gone {
				s.drained.observe(old)
			}
			s.observeLocked(u.key, old, u.entry)
		}
		if again {
			folded[last] = u
		} else {
			folded = append(folded, u)
		}
	}
	return folded
}

func (s *store) dropPendingLocked() {
	clear(s.pending)
	if s.pending = s.pending[:0]; cap(s.pending) > maxPending {
		s.pending = nil
	}
}

// lastValue returns what an instance that has gone was when its key was deleted, as far as is known.
func (s *store) lastValue(was *Instance) *Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.drained.last(was.Key); last != nil && last.ModRevision > was.ModRevision {
		return last
	}
	return was
}

// Publish implements reflector.Store.
func (s *store) Publish(revision int64) {
	s.mu.Lock()
	defer s.unlock()
	shown, events := s.topic.Latest(), len(s.pending)
	snap := shown.next(s.foldLocked(shown), revision, s.preallocated)
	s.retainLocked(snap)
	s.publishChangeLocked(snap, s.received)
	s.drained.forget()
	s.counts.conflated.Add(uint64(max(events-1, 0)))
	s.dropPendingLocked()
	s.preallocated = preallocateFor(len(snap.instances))
}

// preallocateFor gets memory for the snapshot after one of n instances, which some changes fit into.
func preallocateFor(n int) []*Instance { return preallocate.Slice[*Instance](n + n/16 + 4) }

// SetStatus implements reflector.Store. ErrClosed is the last status.
func (s *store) SetStatus(stale error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := s.topic.Known()
	switch {
	case snap == nil && stale != nil:
		s.topic.Fail(stale)
	case snap == nil:
	case stale == nil:
		if shown := s.topic.Latest(); shown != nil && shown.stale != nil {
			s.publishLocked(shown.withStaleness(nil))
		}
	case snap.stale == nil:
		s.publishLocked(snap.withStaleness(&Staleness{Since: time.Now(), Cause: stale}))
	case snap.stale.Cause.Error() != stale.Error():
		s.publishLocked(snap.withStaleness(&Staleness{Since: snap.stale.Since, Cause: stale}))
	}
	if errors.Is(stale, ErrClosed) {
		s.topic.Close(stale)
	}
}

func (s *store) publishLocked(snap *Snapshot) { s.publishChangeLocked(snap, time.Time{}) }

// publishChangeLocked publishes a snapshot, the oldest of whose events was received then; zero: it
// has none.
func (s *store) publishChangeLocked(snap *Snapshot, received time.Time) {
	s.counts.published.Add(1)
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.changes = append(s.changes, snap.Diff(s.topic.Latest())...)
	}
	s.topic.PublishChange(snap, snap.stale == nil, received)
}

// Size implements reflector.Store.
func (s *store) Size() (keys int, modRevision int64) {
	if snap := s.topic.Latest(); snap != nil {
		return snap.size()
	}
	return 0, 0
}

func (s *store) observeLocked(key string, old *Instance, now entry) {
	s.lost.observe(key, old, now, time.Now().Add(s.preservation.Retain))
}

// unlock releases mu, then logs what has happened meanwhile.
func (s *store) unlock() {
	snap, changes := s.began, s.changes
	s.began, s.changes = nil, nil
	s.mu.Unlock()
	if snap != nil {
		s.log.Warn("most instances vanished at once; retaining them", "prefix", snap.prefix,
			"retained", len(snap.retained), "left", len(snap.instances), "for", s.preservation.Retain)
	}
	for i, c := range changes {
		if i == maxLogged {
			s.log.Debug("more endpoints came, changed or went", "prefix", s.empty.prefix, "count", len(changes)-i)
			break
		}
		s.logChange(c)
	}
}

func (s *store) logChange(c Change) {
	switch {
	case c.Old == nil:
		s.log.Debug("endpoint came", "key", c.Key, "addr", c.New.Addr, "status", c.New.Attributes().Status(), "revision", c.New.ModRevision)
	case c.New == nil:
		s.log.Debug("endpoint went", "key", c.Key, "addr", c.Old.Addr, "status", c.Old.Attributes().Status(), "lastRevision", c.Old.ModRevision)
	default:
		s.log.Debug("endpoint changed", "key", c.Key, "addr", c.New.Addr, "status", c.New.Attributes().Status(), "revision", c.New.ModRevision)
	}
}

// retainLocked adds the retained instances to a snapshot that is not published yet, and comes
// back when they change.
func (s *store) retainLocked(snap *Snapshot) {
	if s.lost == nil {
		return
	}
	shown := s.topic.Latest()
	begins := shown == nil || len(shown.retained) == 0
	var next time.Time
	snap.retained, next = s.lost.retained(s.preservation.Share, len(snap.instances), time.Now())
	if len(snap.retained) > 0 && begins {
		s.counts.preservations.Add(1)
		s.began = snap
	}
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	if !next.IsZero() && !s.stopped {
		s.expiry = time.AfterFunc(time.Until(next), s.expire)
	}
}

// expire drops what has been retained for long enough.
func (s *store) expire() {
	s.mu.Lock()
	defer s.unlock()
	shown := s.topic.Latest()
	if s.stopped || shown == nil {
		return
	}
	snap := shown.withStaleness(shown.stale)
	if s.retainLocked(snap); len(snap.retained) != len(shown.retained) {
		s.publishLocked(snap)
	}
}
