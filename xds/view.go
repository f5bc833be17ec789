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
	body        *anypb.Any
	version     string // a hash of body, the same on every replica
	provisional bool   // etcd has not been heard yet: it is better than nothing, and worse than what a client has
}

func newResource(m proto.Message) *resource {
	body := toAny(m)
	return &resource{body: body, version: hash(body.Value)}
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
	refused error    // why the name is not served
	refs    int      // guarded by service.mu

	mu       sync.Mutex
	source   any       // what the resource was made from
	resource *resource // nil: there is none yet
}

// fixedView returns a view that never changes.
func fixedView(key viewKey, m proto.Message) *view {
	return &view{viewKey: key, resource: newResource(m)}
}

// listenerView returns the view of a server's Listener.
func listenerView(key viewKey, parsed resourceName) *view {
	l, err := serverListener(parsed)
	if err != nil {
		return refusedView(key, parsed, err)
	}
	return fixedView(key, l)
}

// refusedView returns the view of a name that is not served: calls to it fail with the reason.
func refusedView(key viewKey, parsed resourceName, why error) *view {
	m := proto.Message(refusal(key.name, why.Error()))
	if key.kind != assignments {
		m = configured(key, parsed, mapServiceConfig(nil))
	}
	v := fixedView(key, m)
	v.refused = why
	return v
}

// configured returns a resource that depends on nothing but the name and the service config.
func configured(key viewKey, parsed resourceName, config *serviceConfig) proto.Message {
	switch key.kind {
	case listeners:
		return clientListener(parsed, config)
	case routes:
		return routeConfiguration(key.name, parsed.as(clusters), config)
	}
	return cluster(parsed, config)
}

// outdated reports whether the service has another content than the resource was made from.
func (v *view) outdated() bool {
	if v.service == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.service.latest.Load()
	if v.kind == assignments {
		return v.source != c
	}
	return v.source != c.config
}

// current returns the resource of the service's latest content, nil if clients have to wait. Who
// asks first makes it for all.
func (v *view) current() *resource {
	if v.service == nil {
		return v.resource
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch c := v.service.latest.Load(); {
	case v.kind != assignments && v.source != c.config:
		v.source, v.resource = c.config, newResource(configured(v.viewKey, v.parsed, c.config))
		v.resource.provisional = !c.config.known
	case v.kind == assignments && v.source != c:
		v.source = c
		if r := v.service.assign(v, c); r != nil {
			v.resource = r
		}
	}
	return v.resource
}
