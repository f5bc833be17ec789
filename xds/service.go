// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// firstAnswer is how long clients of a service wait for what etcd has of it.
const firstAnswer = time.Second

// content is all that the resources of a service are made from. It is immutable.
type content struct {
	snap       *rollcall.Snapshot // nil: there is none yet
	err        error              // why
	config     *serviceConfig
	configured bool // etcd has said which service config there is
	overdue    bool // clients have waited long enough

	made *sync.Map // what was made from it: see once
}

// once returns what make returns for a key of a content, which is made for the first who asks.
func once[T any](c *content, key any, make func() T) T {
	made, ok := c.made.Load(key)
	if !ok {
		made, _ = c.made.LoadOrStore(key, sync.OnceValue(make))
	}
	return made.(func() T)()
}

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
	latest atomic.Pointer[content]

	endpoints *rollcall.Delivery
	configs   *rollcall.ConfigDelivery
	overdue   *time.Timer

	// Guarded by Server.mu.
	refs   int // views
	linger *time.Timer

	mu      sync.Mutex
	views   map[viewKey]*view
	streams map[*stream]int // views that each uses
}

func newService(server *Server, name string) (*service, error) {
	s := &service{server: server, name: name, views: make(map[viewKey]*view), streams: make(map[*stream]int)}
	s.latest.Store(&content{config: mapServiceConfig(nil), made: new(sync.Map)})
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
}

// change makes a new content of the latest and pushes it to the streams that follow the service.
func (s *service) change(edit func(*content)) {
	s.mu.Lock()
	c := *s.latest.Load()
	edit(&c)
	c.made = new(sync.Map)
	s.latest.Store(&c)
	streams := slices.Collect(maps.Keys(s.streams))
	s.mu.Unlock()
	push(streams)
}

func (s *service) deliver(snap *rollcall.Snapshot, err error) {
	if snap != nil {
		s.server.hosts.follow(s, hostNames(snap))
	}
	s.change(func(c *content) { c.snap, c.err = snap, err })
}

func (s *service) deliverConfig(config *rollcall.ServiceConfig, err error) {
	s.change(func(c *content) {
		if c.configured = true; err == nil {
			c.config = mapServiceConfig(config)
		}
	})
}

// hostNames returns the hosts that are to be looked up.
func hostNames(snap *rollcall.Snapshot) map[string]bool {
	names := make(map[string]bool)
	for inst := range snap.All() {
		if _, err := netip.ParseAddrPort(inst.Addr); err != nil && rollcall.HostPort(inst.Addr) == nil {
			host, _, _ := net.SplitHostPort(inst.Addr)
			names[host] = true
		}
	}
	return names
}

// selectFrom returns what a selector selects of a content.
func (s *service) selectFrom(c *content, selector rollcall.Selector) *selection {
	return once(c, selector.String(), func() *selection {
		endpoints, left := endpointsOf(c.snap, selector, s.server.opts.Policy, s.server.hosts.lookup)
		return &selection{endpoints, left}
	})
}

// assign returns a view's ClusterLoadAssignment, nil where the first is to wait. Views of
// different subsets share that of a service which is not divided into subsets.
func (s *service) assign(v *view, c *content) *resource {
	first := v.resource == nil && !c.overdue
	switch {
	case first && (c.snap == nil || !c.configured):
		return nil
	case c.snap == nil:
		return newResource(refusal(v.name, noSnapshot(s.name, c.err)))
	}
	sel := s.selectFrom(c, v.parsed.selector)
	for _, d := range sel.left {
		if first && errors.Is(d.Cause, errResolving) {
			return nil
		}
	}
	key, limit := v.viewKey, s.server.opts.Subset
	if len(sel.endpoints) <= limit {
		key.to.subset = 0
	}
	return once(c, key, func() *resource {
		return newResource(assignmentOf(v.name, s.name, sel.endpoints, sel.left, key.to, c.config, limit))
	})
}

func noSnapshot(service string, err error) string {
	if err == nil {
		return fmt.Sprintf("etcd has not answered for %q yet", service)
	}
	return fmt.Sprintf("etcd cannot be asked for %q: %v", service, err)
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
