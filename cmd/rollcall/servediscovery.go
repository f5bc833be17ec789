// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

const (
	// discoveryLinger is how long what was asked for is followed: Prometheus asks once a minute, by default.
	discoveryLinger = 10 * time.Minute
	// discoveryWait is how long the first request waits for etcd. Prometheus keeps its targets when it fails.
	discoveryWait = 3 * time.Second
	// maxDiscoveries is how many prefixes are followed at most, where not everything may be read.
	maxDiscoveries = 50
)

// discovery serves what a Directory follows as Prometheus' HTTP service discovery. Everything is
// followed once, whatever is asked for; where etcd does not let this client read it, what is asked
// for is. That stays for a while, so that the next request costs etcd nothing and has an answer
// while etcd is away.
type discovery struct {
	directory *rollcall.Directory

	mu       sync.Mutex
	followed map[string]*followedPrefix
}

type followedPrefix struct {
	*rollcall.Subscription
	used time.Time
	end  *time.Timer
}

func newDiscovery(directory *rollcall.Directory) *discovery {
	return &discovery{directory: directory, followed: make(map[string]*followedPrefix)}
}

// discoveryQuery is what a request asks for.
type discoveryQuery struct {
	prefix   string // of keys
	split    inventory.Splitter
	port     uint16 // 0: that of the instance
	selector rollcall.Selector
}

func parseDiscoveryQuery(raw string) (q discoveryQuery, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, fmt.Errorf("query %q: %w; write for example ?service=my-service&port=9090", raw, err)
	}
	for _, name := range []string{"service", "prefix", "port"} {
		if len(values[name]) > 1 {
			return q, fmt.Errorf("%s is given %d times; ask for one at a time, or for a prefix", name, len(values[name]))
		}
	}
	q.prefix, q.split = values.Get("prefix"), rollcall.SplitKey
	if values.Has("service") {
		if values.Has("prefix") {
			return q, errors.New("service and prefix exclude each other; leave one out")
		}
		service, err := rollcall.ParseService(values.Get("service"))
		if err != nil {
			return q, fmt.Errorf("%w; leave it out for all services", err)
		}
		q.prefix, q.split = service+"/", inventory.Under(service)
	}
	if text := values.Get("port"); values.Has("port") {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return q, fmt.Errorf("port %q: want a number from 1 to 65535, or none for that of each endpoint", text)
		}
		q.port = uint16(port)
	}
	values.Del("service")
	values.Del("prefix")
	values.Del("port")
	if q.selector, err = rollcall.ParseSelector(values.Encode()); err != nil {
		return q, fmt.Errorf("%w; besides service, prefix and port", err)
	}
	return q, nil
}

func (d *discovery) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := parseDiscoveryQuery(r.URL.RawQuery)
	if err != nil {
		http.Error(w, oneLine(plain(err)), http.StatusBadRequest)
		return
	}
	snap, err := d.latest(r.Context(), q.prefix)
	if err != nil {
		http.Error(w, "nothing is known yet: "+oneLine(plain(err)), http.StatusServiceUnavailable)
		return
	}
	body, _ := json.Marshal(targetGroups(snap, q.prefix, q.split, q.selector, q.port)) // strings can be written
	sum := fnv.New128a()
	_, _ = sum.Write(body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sum.Sum(nil)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// latest returns the newest snapshot that has a prefix, and perhaps more.
func (d *discovery) latest(ctx context.Context, prefix string) (*rollcall.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryWait)
	defer cancel()
	if !d.follows(prefix) {
		if snap, err := d.follow(ctx, ""); prefix == "" || !errors.Is(err, rpctypes.ErrPermissionDenied) {
			return snap, err
		}
	}
	return d.follow(ctx, prefix)
}

func (d *discovery) follows(prefix string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.followed[prefix] != nil
}

// follow returns the newest snapshot of a prefix, and has it followed for a while.
func (d *discovery) follow(ctx context.Context, prefix string) (*rollcall.Snapshot, error) {
	if err := d.keep(prefix); err != nil {
		return nil, err
	}
	sub, err := d.directory.SubscribePrefix(prefix)
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	return sub.First(ctx)
}

// keep has a prefix followed from now on for a while.
func (d *discovery) keep(prefix string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.followed[prefix]
	switch {
	case f != nil:
	case len(d.followed) >= maxDiscoveries:
		return fmt.Errorf("%d prefixes are followed already, the most that are: ask for fewer and longer ones, or let this client read all keys", maxDiscoveries)
	default:
		sub, err := d.directory.SubscribePrefix(prefix)
		if err != nil {
			return err
		}
		f = &followedPrefix{Subscription: sub}
		f.end = time.AfterFunc(discoveryLinger, func() { d.end(prefix, f) })
		d.followed[prefix] = f
	}
	f.used = time.Now()
	return nil
}

// end closes a subscription that has not been used for a while.
func (d *discovery) end(prefix string, f *followedPrefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if left := discoveryLinger - time.Since(f.used); left > 0 {
		f.end.Reset(left)
		return
	}
	delete(d.followed, prefix)
	f.Close()
}

// close closes all subscriptions.
func (d *discovery) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.followed {
		f.end.Stop()
		f.Close()
	}
}
