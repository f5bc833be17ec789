// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// resource is what clients are sent. It is immutable, and shared by all who are sent the same.
type resource struct {
	body    *anypb.Any
	version string // a hash of body, the same on every replica
}

func newResource(m proto.Message) *resource {
	body := toAny(m)
	return &resource{body, hash(body.Value)}
}

func hash(data []byte) string { return strconv.FormatUint(xxhash.Sum64(data), 36) }

// viewKey tells the views of a service apart.
type viewKey struct {
	kind *kind
	name string // as clients write it
	to   audience
}

// view is one resource of a service as some clients see it.
type view struct {
	viewKey
	parsed  resourceName
	service *service // nil: the view never changes
	refs    int      // guarded by service.mu

	mu         sync.Mutex
	generation uint64
	resource   *resource // nil: there is none yet
}

// fixedView returns a view that never changes.
func fixedView(key viewKey, m proto.Message) *view {
	return &view{viewKey: key, resource: newResource(m)}
}

// refusedView returns the view of a name that is not served: calls to it fail with the reason.
func refusedView(key viewKey, parsed resourceName, why error) *view {
	config := mapServiceConfig(nil)
	switch key.kind {
	case listeners:
		return fixedView(key, clientListener(parsed, config))
	case routes:
		return fixedView(key, routeConfiguration(key.name, parsed.as(clusters), config))
	case clusters:
		return fixedView(key, cluster(parsed, config))
	}
	return fixedView(key, refusal(key.name, why.Error()))
}

// current returns the resource of the service's latest content, nil if clients have to wait. Who
// asks first makes it for all.
func (v *view) current() *resource {
	if v.service == nil {
		return v.resource
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.service.latest.Load(); v.generation != c.generation {
		v.generation = c.generation
		if m := v.render(c); m != nil {
			v.resource = newResource(m)
		}
	}
	return v.resource
}

// render returns the resource of a content, nil where clients have to wait.
func (v *view) render(c *content) proto.Message {
	switch v.kind {
	case listeners:
		return clientListener(v.parsed, c.config)
	case routes:
		return routeConfiguration(v.name, v.parsed.as(clusters), c.config)
	case clusters:
		return cluster(v.parsed, c.config)
	}
	return v.service.assign(v, c)
}
