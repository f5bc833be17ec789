// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package diskcache keeps named contents in a directory, one file each. A file is written
// whole or not at all; one that cannot be read, is of another version or was changed counts
// as none. Nobody waits for the disk but what reads or writes: a disk may hang.
package diskcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

const (
	version     = 1
	workers     = 2                     // reads and writes under way at once
	openTimeout = time.Second           // how long Open waits for the disk
	closeGrace  = 30 * time.Millisecond // how long Close waits for the disk
	tempExpiry  = time.Minute           // a temporary file that has not grown for so long is a dead process's
	maxFile     = 512 << 20             // bytes: a file that is no cache must not take all memory
)

// ErrSlow is returned by Open where the disk does not answer in time. The Cache works as
// soon as the disk does.
var ErrSlow = errors.New("the disk does not answer")

// Cache keeps contents in a directory, which several processes may share.
type Cache struct {
	dir   string
	slots chan struct{} // taken by what is under way
	clean *time.Timer   // removes what was still growing at the start; nil: none
}

// file is the content of a file.
type file struct {
	Version  int
	Prefix   string // name of the content
	Revision int64
	Saved    time.Time
	Sum      string // SHA-256 of Entries, in hex
	Entries  json.RawMessage
}

// Content is what is kept under a name.
type Content struct {
	Revision int64
	Saved    time.Time       // set by Save
	Entries  json.RawMessage // as json.Marshal writes them, else the checksum is wrong when they are loaded
}

// Open returns the Cache of a directory, which it makes if need be.
func Open(dir string) (*Cache, error) {
	c := &Cache{dir: dir, slots: make(chan struct{}, workers)}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	failed := make(chan error, 1)
	if !c.Do(ctx, func() {
		failed <- os.MkdirAll(dir, 0o700)
		c.removeLeftovers()
	}) {
		return c, ErrSlow
	}
	if err := <-failed; err != nil {
		return nil, err
	}
	c.clean = time.AfterFunc(2*tempExpiry, func() { c.Do(context.Background(), c.removeLeftovers) })
	return c, nil
}

// Do runs work on the disk, and reports whether it has ended: it goes on in the background
// when the context ends first.
func (c *Cache) Do(ctx context.Context, work func()) bool {
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

// Close waits for 30 ms at most until nothing is under way.
func (c *Cache) Close() {
	if c.clean != nil {
		c.clean.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	for range workers {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// removeLeftovers removes the temporary files of processes that died while writing.
func (c *Cache) removeLeftovers() {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, file := range files {
		if ours, _ := filepath.Match("*-????????????????.json.*.tmp", file.Name()); !ours || !file.Type().IsRegular() {
			continue
		}
		if info, err := file.Info(); err == nil && time.Since(info.ModTime()) > tempExpiry {
			_ = os.Remove(filepath.Join(c.dir, file.Name()))
		}
	}
}

// Path returns the file of a name: readable, and distinct where names are long.
func (c *Cache) Path(name string) string {
	text := url.PathEscape(name)
	if len(text) > 100 {
		text = text[:100]
	}
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(c.dir, text+"-"+hex.EncodeToString(sum[:8])+".json")
}

// Save writes a content. Call it within Do.
func (c *Cache) Save(name string, content Content) error {
	data, err := json.Marshal(file{Version: version, Prefix: name, Revision: content.Revision,
		Saved: time.Now().UTC(), Sum: sumOf(content.Entries), Entries: content.Entries})
	if err != nil {
		return err
	}
	return replaceFile(c.Path(name), data)
}

// Load reads a content; the error is fs.ErrNotExist where there is none. Call it within Do.
func (c *Cache) Load(name string) (Content, error) {
	path := c.Path(name)
	info, err := os.Stat(path)
	if err != nil {
		return Content{}, err
	}
	if info.Size() > maxFile {
		return Content{}, fmt.Errorf("it has %d bytes, over the limit of %d", info.Size(), int64(maxFile))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Content{}, err
	}
	return parse(name, data)
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// replaceFile replaces a file at once: a crash leaves the old one or the new one, and a
// temporary file for removeLeftovers.
func replaceFile(path string, data []byte) error {
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

// parse reads the content of a file that must be of the given name.
func parse(name string, data []byte) (Content, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return Content{}, err
	}
	switch {
	case f.Version != version:
		return Content{}, fmt.Errorf("version %d, want %d", f.Version, version)
	case f.Prefix != string([]rune(name)): // JSON has U+FFFD for each byte that is not UTF-8
		return Content{}, fmt.Errorf("it holds prefix %q", f.Prefix)
	case f.Sum != sumOf(f.Entries):
		return Content{}, errors.New("its checksum is wrong")
	}
	return Content{f.Revision, f.Saved, f.Entries}, nil
}
