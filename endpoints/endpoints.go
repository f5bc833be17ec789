// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Endpoint is an address at which a service can be reached.
type Endpoint struct {
	// Addr is the address, "host:port" for gRPC.
	Addr string
	// Metadata is any value that encoding/json can write. It is read back as encoding/json
	// does: objects are map[string]any, numbers float64.
	Metadata any
}

// Operation is what an Update does.
type Operation uint8

const (
	// Add sets an endpoint, whether it exists or not.
	Add Operation = iota
	// Delete deletes an endpoint.
	Delete
)

// Update is the addition or deletion of an endpoint.
type Update struct {
	Op       Operation
	Key      string   // whole key, "<target>/<id>"
	Endpoint Endpoint // empty for Delete
}

// WatchChannel receives changes. A slice covers one or more revisions of etcd; the changes of
// a transaction are never split. Of changes that follow each other closely, to one key too, the
// last state is received: an endpoint that was added and deleted at once may not appear. The channel is closed only when the context of the watch
// ends or the client is closed.
type WatchChannel <-chan []*Update

// Key2EndpointMap maps whole keys to endpoints.
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
	// Update adds and deletes endpoints in one transaction: all or none. It returns
	// InvalidArgument for a key that is not under the target, or is under "_grpc_config/",
	// for an unknown operation, for an endpoint that cannot be encoded, and for options that
	// affect other keys or do not fit the operation. It returns a *LimitError for more than
	// the server accepts in a request. After an error, nothing is written. A key may appear
	// only once, except that a deletion before an addition of the same key is ignored.
	Update(ctx context.Context, updates []*UpdateWithOpts) error

	// AddEndpoint sets one endpoint.
	AddEndpoint(ctx context.Context, key string, endpoint Endpoint, opts ...clientv3.OpOption) error
	// DeleteEndpoint deletes one endpoint. It is not an error if there is none.
	DeleteEndpoint(ctx context.Context, key string, opts ...clientv3.OpOption) error

	// List reads the target's endpoints from etcd, linearizably. Invalid values are left
	// out.
	List(ctx context.Context) (Key2EndpointMap, error)
	// NewWatchChannel returns a channel that first receives the existing endpoints, if there
	// are any, and then the changes. It waits for etcd's first answer, and fails if ctx ends
	// or permission is denied. No failure of etcd ends the watch: cancel ctx, or close the
	// client.
	NewWatchChannel(ctx context.Context) (WatchChannel, error)
}
