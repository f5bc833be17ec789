// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/diskcache"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

const (
	maxRemembered = 128                    // snapshots of ranges without a subscriber
	rememberFor   = 30 * time.Minute       // how long each of them is remembered
	showAfter     = 500 * time.Millisecond // how long etcd has to answer before a fallback is shown
	readAfter     = 200 * time.Millisecond // how long etcd has to say nothing before a file is read
	savePeriod    = 5 * time.Second        // least time between two writes of one file
	saveShare     = 20                     // a write takes at most one part in so many of the time
	rewritePeriod = 10 * time.Minute       // a file is written anew so often, so that its age means something
)

var errNotConfirmed = errors.New("known from before, not confirmed by etcd yet")

// fallbacks are the last snapshots of key ranges, for subscriptions made while etcd does not
// answer: in memory, of ranges that are no longer followed, and on disk, for other processes.
type fallbacks struct {
	disk *diskcache.Cache // nil: none
	log  *slog.Logger

	mu     *sync.Mutex // Directory.mu; guards what follows
	memory map[etcdkv.KeyRange]remembered
	expiry *time.Timer // drops what is too old; nil: nothing was remembered yet
}

// remembered is a stale snapshot in memory.
type remembered struct {
	snap *Snapshot
	at   time.Time
}

func newFallbacks(dir string, log *slog.Logger, mu *sync.Mutex) (*fallbacks, error) {
	f := &fallbacks{log: log, mu: mu, memory: make(map[etcdkv.KeyRange]remembered)}
	if dir == "" {
		return f, nil
	}
	disk, err := diskcache.Open(dir)
	switch {
	case errors.Is(err, diskcache.ErrSlow):
		log.Warn("the disk does not answer; going on without the cache until it does", "directory", dir)
	case err != nil:
		return nil, inputError("cache directory", dir, "it cannot be made: %v", err)
	}
	f.disk = disk
	return f, nil
}

// close waits for what is under way on disk, for a moment.
func (f *fallbacks) close() {
	if f.disk != nil {
		f.disk.Close()
	}
}

// forgetLocked drops what is in memory.
func (f *fallbacks) forgetLocked() {
	clear(f.memory)
	if f.expiry != nil {
		f.expiry.Stop()
	}
}

// rememberLocked adds a snapshot, stale from now on, and drops the oldest of too many.
func (f *fallbacks) rememberLocked(keys etcdkv.KeyRange, snap *Snapshot) {
	now := time.Now()
	snap = snap.withStaleness(cmp.Or(snap.stale, &Staleness{Since: now, Cause: errNotConfirmed}))
	snap.retained = nil // their expiry is not watched here
	f.memory[keys] = remembered{snap, now}
	if oldest := f.expireLocked(); len(f.memory) > maxRemembered {
		delete(f.memory, oldest)
	}
}

// expireLocked drops what is too old and returns the oldest of the rest, which is dropped in time.
func (f *fallbacks) expireLocked() (oldest etcdkv.KeyRange) {
	now := time.Now()
	next := rememberFor
	for keys, r := range f.memory {
		switch left := r.at.Add(rememberFor).Sub(now); {
		case left <= 0:
			delete(f.memory, keys)
		case left <= next:
			oldest, next = keys, left
		}
	}
	switch {
	case len(f.memory) == 0:
	case f.expiry == nil:
		f.expiry = time.AfterFunc(next, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.expireLocked()
		})
	default:
		f.expiry.Reset(next)
	}
	return oldest
}

// takeLocked removes and returns the snapshot of a range, or nil.
func (f *fallbacks) takeLocked(keys etcdkv.KeyRange) *Snapshot {
	r, ok := f.memory[keys]
	delete(f.memory, keys)
	if !ok || time.Since(r.at) > rememberFor {
		return nil
	}
	return r.snap
}

// serve shows the fallback of a store where etcd does not answer in time, and from then on
// saves its snapshots. It ends with the context. Silence is how long etcd has not answered.
func (f *fallbacks) serve(ctx context.Context, s *store, silence func() time.Duration, state func() connectivity.State) {
	f.show(ctx, s, silence, state())
	if f.disk != nil && ctx.Err() == nil {
		f.save(ctx, s)
	}
}

func (f *fallbacks) show(ctx context.Context, s *store, silence func() time.Duration, state connectivity.State) {
	t := s.topic
	began := time.Now()
	grace := showAfter
	known := t.Known() != nil
	if state == connectivity.TransientFailure || known && state != connectivity.Ready { // every process begins without a connection
		grace = 0
	}
	if !known {
		slow := time.AfterFunc(topic.AnswerTimeout, t.Searched) // the disk may take longer
		defer slow.Stop()
		f.load(ctx, s, silence)
	}
	t.Searched()
	if t.Unconfirmed() != nil && awaitValue(ctx, t, grace-time.Since(began)) == nil {
		t.ShowFallback()
	}
}

// awaitValue waits for d, or until the topic has a value.
func awaitValue(ctx context.Context, t *topic.Topic[Snapshot], d time.Duration) error {
	until := time.Now().Add(d)
	for t.Latest() == nil && time.Now().Before(until) {
		if err := backoff.Sleep(ctx, time.Until(until), t.Observer()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// load reads what is kept on disk. It begins once etcd has said nothing for a while: reading
// a large file would take the processor from what etcd sends.
func (f *fallbacks) load(ctx context.Context, s *store, silence func() time.Duration) {
	for s.topic.Latest() == nil {
		wait := readAfter - silence()
		if wait <= 0 {
			break
		}
		if awaitValue(ctx, s.topic, wait) != nil {
			return
		}
	}
	prefix := s.empty.prefix
	var snap *Snapshot
	var err error
	if s.topic.Latest() != nil || !f.disk.Do(ctx, func() { snap, err = f.read(prefix) }) {
		return
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		f.log.Warn("ignoring the cached snapshot", "file", f.disk.Path(prefix), "cause", err)
	case s.topic.SetFallback(snap):
		f.log.Info("etcd has not answered yet; the cache has what was last known", "prefix", prefix,
			"endpoints", len(snap.instances), "saved", snap.stale.Since)
	}
}

// cacheEntry is an instance on disk. Key and Metadata are bytes, since JSON within JSON would
// neither come back as it was stored nor nest as deep.
type cacheEntry struct {
	Key            []byte
	Addr           string
	Metadata       []byte
	Lease          clientv3.LeaseID
	CreateRevision int64
	ModRevision    int64
}

// read returns the snapshot on disk, stale since it was saved.
func (f *fallbacks) read(prefix string) (*Snapshot, error) {
	content, err := f.disk.Load(prefix)
	if err != nil {
		return nil, err
	}
	var entries []cacheEntry
	if err := json.Unmarshal(content.Entries, &entries); err != nil {
		return nil, err
	}
	snap := &Snapshot{prefix: prefix, revision: content.Revision, instances: make([]*Instance, len(entries))}
	for i, e := range entries {
		snap.instances[i] = &Instance{Key: string(e.Key), Addr: e.Addr, Metadata: e.Metadata,
			Lease: e.Lease, CreateRevision: e.CreateRevision, ModRevision: e.ModRevision, service: serviceLen(prefix)}
	}
	return snap.withStaleness(&Staleness{Since: content.Saved, Cause: fmt.Errorf("%w: saved %v ago in %s",
		errNotConfirmed, time.Since(content.Saved).Round(time.Second), f.disk.Path(prefix))}), nil
}

func (f *fallbacks) write(snap *Snapshot) error {
	entries := make([]cacheEntry, 0, len(snap.instances))
	for _, inst := range snap.instances {
		entries = append(entries, cacheEntry{[]byte(inst.Key), inst.Addr, inst.Metadata, inst.Lease, inst.CreateRevision, inst.ModRevision})
	}
	raw, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	return f.disk.Save(snap.prefix, diskcache.Content{Revision: snap.revision, Entries: raw})
}

// save writes live snapshots to disk: the first at once, then the newest every savePeriod,
// less often where a write takes long, and one that stays the same every rewritePeriod.
func (f *fallbacks) save(ctx context.Context, s *store) {
	news := s.topic.Observer()
	var saved *Snapshot
	var failure string
	rewrite := time.NewTicker(rewritePeriod)
	defer rewrite.Stop()
	backoff.Wake(news)
	for {
		select {
		case <-news:
		case <-rewrite.C:
			saved = nil
		case <-ctx.Done():
			return
		}
		snap := s.topic.Latest()
		if snap == nil || snap.stale != nil || saved != nil && saved.sameContent(snap) {
			continue
		}
		began, err := time.Now(), error(nil)
		if !f.disk.Do(ctx, func() { err = f.write(snap) }) {
			return
		}
		if err == nil {
			saved, failure = snap, ""
		} else {
			if failure != err.Error() {
				failure = err.Error()
				f.log.Warn("cannot write the cache; trying again", "prefix", snap.prefix, "cause", err)
			}
			backoff.Wake(news) // to try again
		}
		if backoff.Sleep(ctx, max(savePeriod, saveShare*time.Since(began)), nil) != nil {
			return
		}
	}
}
