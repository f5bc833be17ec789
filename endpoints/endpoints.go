// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Endpoint is an address that a service can be reached at.
type Endpoint struct {
	// Addr is the address, "host:port" for gRPC.
	Addr string
	// Metadata is anything that encoding/json writes. What is read back is what
	// encoding/json makes of it: objects are map[string]any, numbers float64.
	Metadata any
}

// Operation says what an Update does.
type Operation uint8

const (
	// Add sets an endpoint, new or not.
	Add Operation = iota
	// Delete takes an endpoint out.
	Delete
)

// Update is one endpoint that was, or is to be, added or deleted.
type Update struct {
	Op       Operation
	Key      string   // whole key, "<target>/<id>"
	Endpoint Endpoint // empty for Delete
}

// WatchChannel receives what changed, a slice for one or several revisions of etcd:
// what one transaction changed is never split. It is closed only when the context of
// the watch ends or the client is closed.
type WatchChannel <-chan []*Update

// Key2EndpointMap holds endpoints by their whole key.
type Key2EndpointMap map[string]Endpoint

// UpdateWithOpts is an Update with options for etcd, such as a lease.
type UpdateWithOpts struct {
	Update
	Opts []clientv3.OpOption
}

// NewAddUpdateOpts returns an Update that adds an endpoint.
func NewAddUpdateOpts(key string, endpoint Endpoint, opts ...clientv3.OpOption) *UpdateWithOpts {
	return &UpdateWithOpts{Update: Update{Op: Add, Key: key, Endpoint: endpoint}, Opts: opts}
}

// NewDeleteUpdateOpts returns an Update that deletes an endpoint.
func NewDeleteUpdateOpts(key string, opts ...clientv3.OpOption) *UpdateWithOpts {
	return &UpdateWithOpts{Update: Update{Op: Delete, Key: key}, Opts: opts}
}

// Manager manages the endpoints of one target.
type Manager interface {
	// Update adds and deletes endpoints in one transaction: all of them or none. A key
	// outside the target, an unknown operation, an endpoint that cannot be encoded, one at a
	// key under "_grpc_config/" and options that reach beyond the key or that the operation
	// does not take are InvalidArgument; more than the server takes at once is a *LimitError.
	// Nothing is written then. A key may be deleted and then added, which comes to adding it,
	// and not be named twice otherwise.
	Update(ctx context.Context, updates []*UpdateWithOpts) error

	// AddEndpoint sets one endpoint.
	AddEndpoint(ctx context.Context, key string, endpoint Endpoint, opts ...clientv3.OpOption) error
	// DeleteEndpoint takes one endpoint out. One that is not there is no error.
	DeleteEndpoint(ctx context.Context, key string, opts ...clientv3.OpOption) error

	// List returns the target's endpoints from etcd itself, linearizably: what the
	// caller wrote before is there. Values that are no endpoints are left out.
	List(ctx context.Context) (Key2EndpointMap, error)
	// NewWatchChannel returns a channel whose first message holds what is there (none is
	// sent for a target without endpoints) and whose further ones hold what changed. It
	// waits for etcd's first answer and fails with the context or for want of rights.
	// The watch outlives every fault of etcd's; cancel the context to end it. Closing the
	// client ends it too.
	NewWatchChannel(ctx context.Context) (WatchChannel, error)
}
