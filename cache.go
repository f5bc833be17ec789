// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

const (
	cacheVersion = 1
	ofFile       = -1                    // Snapshot.History of what a file held
	saveEvery    = 5 * time.Second       // least time between two writes of one file
	saveShare    = 20                    // a save takes at most one part in so many of the time
	confirmEvery = 10 * time.Minute      // a file is written anew so often, so that its age says something
	diskWorkers  = 2                     // reads and writes under way at once
	diskGrace    = 30 * time.Millisecond // how long a Close waits for them
	tempExpiry   = time.Minute           // a temporary file that has not grown for so long is a dead process's
	largestFile  = 512 << 20             // bytes: a file that is no cache must not take all memory
)

// cache keeps snapshots in a directory, one file a prefix, for processes that start while
// etcd is away. A file is written whole or not at all; one that cannot be read, is of
// another version or was changed counts as none. Nobody waits for the disk but what reads
// or writes: a disk may hang.
type cache struct {
	dir   string
	log   *slog.Logger
	slots chan struct{} // taken by what is under way
	again *time.Timer   // cleans up what was still growing at the start
}

// cacheFile is the content of a file: JSON, with Entries as they were summed.
type cacheFile struct {
	Version  int
	Prefix   string
	Revision int64
	Saved    time.Time
	Sum      string // SHA-256 of Entries, in hex
	Entries  json.RawMessage
}

// cacheEntry is an instance. Key and Metadata are bytes, since JSON within JSON would
// neither come back as it was stored nor nest as deep.
type cacheEntry struct {
	Key            []byte
	Addr           string
	Metadata       []byte
	Lease          clientv3.LeaseID
	CreateRevision int64
	ModRevision    int64
}

func newCache(dir string, log *slog.Logger) (*cache, error) {
	c := &cache{dir: dir, log: log, slots: make(chan struct{}, diskWorkers)}
	ctx, cancel := context.WithTimeout(context.Background(), answerGrace)
	defer cancel()
	failed := make(chan error, 1)
	if !c.do(ctx, func() {
		failed <- os.MkdirAll(dir, 0o700)
		c.clean()
	}) {
		log.Warn("the disk does not answer; going on without the cache until it does", "directory", dir)
		return c, nil
	}
	if err := <-failed; err != nil {
		return nil, inputError("cache directory", dir, "it cannot be made: %v", err)
	}
	c.again = time.AfterFunc(2*tempExpiry, func() { c.do(context.Background(), c.clean) })
	return c, nil
}

// do runs work on the disk, and returns whether it has ended: it goes on behind when the
// context ends first.
func (c *cache) do(ctx context.Context, work func()) bool {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { <-c.slots }()
		work()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// close waits until nothing is under way, for diskGrace at most.
func (c *cache) close() {
	if c.again != nil {
		c.again.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), diskGrace)
	defer cancel()
	for range diskWorkers {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// clean removes what processes that died while they were writing left behind.
func (c *cache) clean() {
	files, err := filepath.Glob(filepath.Join(c.dir, "*-????????????????.json.*.tmp"))
	if err != nil {
		return
	}
	for _, file := range files {
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > tempExpiry {
			_ = os.Remove(file)
		}
	}
}

// path returns the file of a prefix: readable, and distinct where names are long.
func (c *cache) path(prefix string) string {
	name := url.PathEscape(prefix)
	if len(name) > 100 {
		name = name[:100]
	}
	sum := sha256.Sum256([]byte(prefix))
	return filepath.Join(c.dir, name+"-"+hex.EncodeToString(sum[:8])+".json")
}

// save writes a snapshot.
func (c *cache) save(snap *Snapshot) error {
	entries := make([]cacheEntry, 0, len(snap.instances))
	for _, inst := range snap.instances {
		entries = append(entries, cacheEntry{[]byte(inst.Key), inst.Addr, inst.Metadata, inst.Lease, inst.CreateRevision, inst.ModRevision})
	}
	raw, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	data, err := json.Marshal(cacheFile{Version: cacheVersion, Prefix: snap.prefix, Revision: snap.revision,
		Saved: time.Now().UTC(), Sum: sumOf(raw), Entries: raw})
	if err != nil {
		return err
	}
	return writeWhole(c.path(snap.prefix), data)
}

// load returns the snapshot of a prefix, stale since it was saved; nil where there is none.
func (c *cache) load(prefix string) *Snapshot {
	path := c.path(prefix)
	snap, err := readCache(path, prefix)
	switch {
	case err == nil:
		return snap
	case !errors.Is(err, fs.ErrNotExist):
		c.log.Warn("cached snapshot ignored", "file", path, "cause", err)
	}
	return nil
}

func readCache(path, prefix string) (*Snapshot, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > largestFile {
		return nil, fmt.Errorf("it has %d bytes, over the limit of %d", info.Size(), int64(largestFile))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file cacheFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	switch {
	case file.Version != cacheVersion:
		return nil, fmt.Errorf("version %d, want %d", file.Version, cacheVersion)
	case file.Prefix != prefix:
		return nil, fmt.Errorf("it holds prefix %q", file.Prefix)
	case file.Sum != sumOf(file.Entries):
		return nil, errors.New("its checksum is wrong")
	}
	var entries []cacheEntry
	if err := json.Unmarshal(file.Entries, &entries); err != nil {
		return nil, err
	}
	snap := &Snapshot{prefix: prefix, revision: file.Revision, history: ofFile, instances: make([]*Instance, len(entries))}
	for i, e := range entries {
		snap.instances[i] = &Instance{Key: string(e.Key), Addr: e.Addr, Metadata: e.Metadata,
			Lease: e.Lease, CreateRevision: e.CreateRevision, ModRevision: e.ModRevision}
	}
	return snap.restated(&Staleness{Since: file.Saved, Cause: fmt.Errorf("%w: saved %v ago in %s",
		errNotConfirmed, time.Since(file.Saved).Round(time.Second), path)}), nil
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// writeWhole replaces a file at once: a crash leaves the old one or the new one, and a
// temporary file for clean.
func writeWhole(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// saver writes a feed's live snapshots to the cache, in a goroutine of its own: the first
// at once, then the newest every saveEvery, less often where a save takes long, and one
// that stays the same every confirmEvery.
type saver struct {
	feed *feed
	wake chan struct{} // capacity 1: there is another snapshot
}

func (s *saver) run(ctx context.Context) {
	c := s.feed.dir.cache
	var saved *Snapshot
	var failure string
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	for {
		select {
		case <-s.wake:
		case <-confirm.C:
			saved = nil
		case <-ctx.Done():
			return
		}
		snap, _ := s.feed.latest()
		if snap == nil || snap.stale != nil || saved != nil && saved.sameContent(snap) {
			continue
		}
		began, err := time.Now(), error(nil)
		if !c.do(ctx, func() { err = c.save(snap) }) {
			return
		}
		if err == nil {
			saved, failure = snap, ""
		} else {
			if failure != err.Error() {
				failure = err.Error()
				c.log.Warn("cannot write the cache; trying again", "prefix", snap.prefix, "cause", err)
			}
			notify(s.wake) // to try again
		}
		if backoff.Sleep(ctx, max(saveEvery, saveShare*time.Since(began)), nil) != nil {
			return
		}
	}
}
