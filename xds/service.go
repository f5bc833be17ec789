// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-grpc/rollcall"
)

// firstAnswer is how long clients of a service wait for what etcd has of it.
const firstAnswer = time.Second

// content is all that the resources of a service are made from. It is immutable.
type content struct {
	snap    *rollcall.Snapshot // nil: there is none yet
	known   map[*rollcall.Instance]*description
	err     error // why there is no snapshot
	config  *serviceConfig
	overdue bool // clients have waited long enough

	made *made
}

// made is what was made from a content, by what it is.
type made struct {
	mu  sync.Mutex
	all map[any]any // of func() T
}

// maxMade is how much is kept: clients can make up selectors and localities.
const maxMade = 1000

// once returns what produce returns for a key of a content, which is made for the first who asks.
func once[T any](c *content, key any, produce func() T) T {
	c.made.mu.Lock()
	f, ok := c.made.all[key].(func() T)
	if !ok {
		if len(c.made.all) >= maxMade {
			clear(c.made.all)
		}
		f = sync.OnceValue(produce)
		c.made.all[key] = f
	}
	c.made.mu.Unlock()
	return f()
}

func newMade() *made { return &made{all: make(map[any]any)} }

// selection is what a selector selects of a content.
type selection struct {
	endpoints []endpoint
	left      []rollcall.Disallowed
}

// service is a service that clients have asked for. It is followed while they do, and for
// Options.Linger.
type service struct {
	server *Server
	name   string
	latest atomic.Pointer[content] // that streams may see

	endpoints *rollcall.Delivery
	configs   *rollcall.ConfigDelivery
	overdue   *time.Timer

	known      map[*rollcall.Instance]*description // of the last snapshot; deliver's own
	unfollowed bool                                // no more hosts are to be followed; guarded by hosts.mu

	// Guarded by Server.mu.
	refs   int // views
	linger *time.Timer

	mu      sync.Mutex
	views   map[viewKey]*view
	streams map[*stream]int // views that each uses
	newest  *content        // which becomes the latest with the next push
	pushing bool            // the latest is being pushed, or was a moment ago
	closed  bool            // nothing is pushed any more
	rest    *time.Timer     // from the last push
	pushes  sync.WaitGroup  // 1 while a push is under way
}

func newService(server *Server, name string) (*service, error) {
	s := &service{server: server, name: name, views: make(map[viewKey]*view), streams: make(map[*stream]int)}
	s.newest = &content{config: mapServiceConfig(nil), made: newMade()}
	s.latest.Store(s.newest)
	var err error
	if s.endpoints, s.configs, err = server.directory.SubscribeServiceFunc(name, s.deliver, s.deliverConfig); err != nil {
		return nil, err
	}
	s.overdue = time.AfterFunc(firstAnswer, func() { s.change(func(c *content) { c.overdue = true }) })
	return s, nil
}

func (s *service) close() {
	s.overdue.Stop()
	s.endpoints.Close()
	s.configs.Close()
	s.server.hosts.follow(s, nil)
	s.endPushes()
}

// change makes a new content of the newest, to be pushed.
func (s *service) change(edit func(*content)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *s.newest
	edit(&c)
	c.made = newMade()
	s.newest = &c
	s.pushLocked()
}

func (s *service) deliver(snap *rollcall.Snapshot, err error) {
	if snap != nil {
		s.known = describe(snap, s.known)
		s.server.hosts.follow(s, hostNames(s.known))
	}
	s.change(func(c *content) { c.snap, c.known, c.err = snap, s.known, err })
}

func (s *service) deliverConfig(config *rollcall.ServiceConfig, err error) {
	if err != nil && !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return // there may be one
	}
	mapped := mapServiceConfig(config)
	mapped.known = true
	s.change(func(c *content) {
		if err == nil || !c.config.known {
			c.config = mapped
		}
	})
}

// hostNames returns the hosts that are to be looked up.
func hostNames(known map[*rollcall.Instance]*description) map[string]bool {
	names := make(map[string]bool)
	for _, d := range known {
		if d.host != "" {
			names[d.host] = true
		}
	}
	return names
}

// selectFrom returns what a selector selects of a content.
func (s *service) selectFrom(c *content, selector rollcall.Selector) *selection {
	return once(c, selector.String(), func() *selection {
		endpoints, left := endpointsOf(c.snap, c.known, selector, s.server.opts.Policy, s.server.hosts.lookup)
		return &selection{endpoints, left}
	})
}

// assign returns a view's ClusterLoadAssignment, nil where clients are to wait or to go on with
// what they have. Views of different subsets share that of a service which is not divided into
// subsets.
func (s *service) assign(v *view, c *content) *resource {
	first := v.resource == nil && !c.overdue
	switch {
	case first && (c.snap == nil || !c.config.known):
		return nil
	case c.snap == nil:
		return provisional(refusal(v.name, noSnapshot(s.name, c.err)))
	}
	sel := s.selectFrom(c, v.parsed.selector)
	resolving := slices.ContainsFunc(sel.left, func(d rollcall.Disallowed) bool { return errors.Is(d.Cause, errResolving) })
	switch nothing, stale := len(sel.endpoints) == 0, c.snap.Staleness() != nil; {
	case first && resolving, v.resource != nil && nothing && (resolving || stale):
		return nil
	case nothing && stale: // endpoints may have come since
		return provisional(refusal(v.name, noSnapshot(s.name, nil)))
	}
	key, limit := v.viewKey, s.server.opts.Subset
	if len(sel.endpoints) <= limit {
		key.to.subset = 0
	}
	return once(c, key, func() *resource {
		return newResource(assignmentOf(v.name, s.name, sel.endpoints, sel.left, key.to, c.config, limit))
	})
}

func provisional(m proto.Message) *resource {
	r := newResource(m)
	r.provisional = true
	return r
}

// noSnapshot says why nothing is known of a service. It is the same on every replica, and names
// nothing of etcd's that clients need not know.
func noSnapshot(service string, err error) string {
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Sprintf("the xDS server has no right to read %q in etcd", service)
	}
	return fmt.Sprintf("etcd cannot be reached, and nothing is known of %q", service)
}

// view returns the view of a key for a stream, which releases it.
func (s *service) view(key viewKey, parsed resourceName, stream *stream) *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[key]
	if v == nil {
		v = &view{viewKey: key, parsed: parsed, service: s}
		s.views[key] = v
	}
	v.refs++
	s.streams[stream]++
	return v
}

func (s *service) release(v *view, stream *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.refs--; v.refs == 0 {
		delete(s.views, v.viewKey)
	}
	if s.streams[stream]--; s.streams[stream] == 0 {
		delete(s.streams, stream)
	}
}
