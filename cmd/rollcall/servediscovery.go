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

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

const (
	// discoveryLinger is how long what was asked for is followed: Prometheus asks once a minute, by default.
	discoveryLinger = 10 * time.Minute
	// discoveryWait is how long the first request waits for etcd. Prometheus keeps its targets when it fails.
	discoveryWait = 3 * time.Second
	// maxDiscoveries is how many services and prefixes are followed at most. Those beyond are answered
	// as well, but listed for each request.
	maxDiscoveries = 1000
)

// discovery serves what a Directory follows as Prometheus' HTTP service discovery. A request
// subscribes; the latest subscription of each prefix stays for a while, so that the next request
// costs etcd nothing and has an answer while etcd is away.
type discovery struct {
	directory *rollcall.Directory

	mu        sync.Mutex
	lingering map[string]*lingering // by prefix
}

type lingering struct {
	*rollcall.Subscription
	end *time.Timer
}

func newDiscovery(directory *rollcall.Directory) *discovery {
	return &discovery{directory: directory, lingering: make(map[string]*lingering)}
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
	body, _ := json.Marshal(targetGroups(snap, q.split, q.selector, q.port)) // strings can be written
	sum := fnv.New128a()
	_, _ = sum.Write(body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sum.Sum(nil)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// latest returns the newest snapshot of a prefix, and has it followed for a while.
func (d *discovery) latest(ctx context.Context, prefix string) (*rollcall.Snapshot, error) {
	sub, err := d.directory.SubscribePrefix(prefix)
	if err != nil {
		return nil, err
	}
	defer d.linger(prefix, sub)
	ctx, cancel := context.WithTimeout(ctx, discoveryWait)
	defer cancel()
	return sub.First(ctx)
}

// linger keeps a subscription that a request is done with, in place of the one of the request before.
func (d *discovery) linger(prefix string, sub *rollcall.Subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.lingering[prefix]
	if before == nil && len(d.lingering) >= maxDiscoveries {
		sub.Close()
		return
	}
	now := &lingering{Subscription: sub}
	now.end = time.AfterFunc(discoveryLinger, func() { d.end(prefix, now) })
	d.lingering[prefix] = now
	if before != nil && before.end.Stop() {
		before.Close()
	}
}

// end closes a subscription that has lingered.
func (d *discovery) end(prefix string, ended *lingering) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lingering[prefix] == ended {
		delete(d.lingering, prefix)
	}
	ended.Close()
}

// close closes all subscriptions.
func (d *discovery) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lingering {
		if l.end.Stop() {
			l.Close()
		}
	}
}
