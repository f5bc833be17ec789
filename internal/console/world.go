// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// world is what one user sees of etcd, or all who have no user of their own.
type world struct {
	*hub
	directory *rollcall.Directory
	services  *catalog // of the whole store
	clients   clientList
	own       bool // the Directory and its client end with the world
}

// newWorld follows the whole store from the start, so that the first page is quick.
func newWorld(directory *rollcall.Directory) (*world, error) {
	w := &world{hub: newHub(), directory: directory}
	var err error
	if w.services, err = newCatalog(directory, ""); err != nil {
		w.hub.close()
		return nil, err
	}
	w.running.Go(func() { w.services.follow(w.ctx) })
	return w, nil
}

// newUserWorld is what the user of a client sees. The world closes the client.
func newUserWorld(client *clientv3.Client, log *slog.Logger) (*world, error) {
	directory, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{Logger: log})
	if err != nil {
		return nil, err
	}
	w, err := newWorld(directory)
	if err != nil {
		directory.Close()
		return nil, err
	}
	w.own = true
	return w, nil
}

func (w *world) close() {
	w.hub.close()
	if w.own {
		w.directory.Close()
		_ = w.directory.Client().Close()
	}
}

// catalog has the services of a key prefix, counted while somebody wants to know.
type catalog struct {
	sub  *rollcall.Subscription
	wake chan struct{}

	mu      sync.Mutex
	readers map[chan struct{}]bool
	latest  listing

	// Of the loop.
	last *rollcall.Snapshot
	seen map[string]time.Time
}

// listing is what a catalog has counted. It is immutable.
type listing struct {
	snap     *rollcall.Snapshot // nil before the first
	err      error              // why there is none
	services []inventory.Service
	seen     map[string]time.Time // when a service was last seen to change
}

func newCatalog(directory *rollcall.Directory, prefix string) (*catalog, error) {
	sub, err := directory.SubscribePrefix(prefix)
	if err != nil {
		return nil, err
	}
	return &catalog{sub: sub, wake: make(chan struct{}, 1), readers: make(map[chan struct{}]bool), seen: make(map[string]time.Time)}, nil
}

// follow counts until the context ends.
func (c *catalog) follow(ctx context.Context) {
	defer c.sub.Close()
	var forwarding sync.WaitGroup
	defer forwarding.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	forwarding.Go(func() {
		for {
			select {
			case <-c.sub.Changed():
				poke(c.wake)
			case <-ctx.Done():
				return
			}
		}
	})
	pace(ctx, c.wake, c.count)
}

// count notes which services have changed, and counts their keys if there are readers.
func (c *catalog) count() {
	snap, err := c.sub.Latest(), c.sub.Err()
	if snap != nil && snap != c.last {
		if c.last != nil {
			for _, change := range snap.Diff(c.last) {
				service, _ := rollcall.SplitKey(change.Key)
				c.seen[service] = time.Now()
			}
			if len(c.seen) > 2*maxSeen {
				c.forget()
			}
		}
		c.last = snap
	}
	c.mu.Lock()
	wanted := len(c.readers) > 0 && (snap != c.latest.snap || err != c.latest.err)
	c.mu.Unlock()
	if !wanted {
		return
	}
	next := listing{snap: snap, err: err, seen: make(map[string]time.Time)}
	if snap != nil {
		next.services = inventory.Services(snap)
		for _, s := range next.services {
			if at, ok := c.seen[s.Service]; ok {
				next.seen[s.Service] = at
			}
		}
		c.seen = maps.Clone(next.seen)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = next
	for reader := range c.readers {
		poke(reader)
	}
}

// maxSeen is how many services a catalog without readers remembers the last change of.
const maxSeen = 10_000

// forget drops all but the latest of what is remembered.
func (c *catalog) forget() {
	names := slices.SortedFunc(maps.Keys(c.seen), func(a, b string) int { return c.seen[b].Compare(c.seen[a]) })
	for _, name := range names[maxSeen:] {
		delete(c.seen, name)
	}
}

// read has a channel poked when there is another listing, until the result is called.
func (c *catalog) read(wake chan struct{}) (stop func()) {
	c.mu.Lock()
	if len(c.readers) == 0 {
		c.latest = listing{} // what was counted for earlier readers may be old
	}
	c.readers[wake] = true
	c.mu.Unlock()
	poke(c.wake)
	return func() {
		c.mu.Lock()
		delete(c.readers, wake)
		c.mu.Unlock()
	}
}

// listing returns the latest; it has neither a snapshot nor an error before the first.
func (c *catalog) listing() listing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

// denied reports whether etcd refuses to let the user read.
func denied(err error) bool { return etcdkv.AccessDenied(err) }
