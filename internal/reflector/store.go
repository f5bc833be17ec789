// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Store is what a Reflector keeps in line with a range of keys.
type Store interface {
	// NewList returns an empty list, for the range to be read into.
	NewList() List
	// Apply takes in the events of one response, in order. They may stay unpublished until
	// Publish, and their keys and values may be kept.
	Apply(events []*clientv3.Event)
	// Publish publishes all that was applied, as the content at a revision, live.
	Publish(revision int64)
	// SetStatus sets whether the content follows etcd: stale is the reason why not, nil while it
	// does.
	// etcdkv.ErrClientClosed is the last status.
	SetStatus(stale error)
	// Size returns how many keys the content has, and their greatest ModRevision, with or without
	// what is not published yet: a difference counts if it lasts.
	Size() (keys int, modRevision int64)
}

// Adder takes the content of a range while it arrives, to be decoded part by part.
type Adder interface {
	// Add takes the next keys, in order. It may keep their Key and Value, and nothing else of them:
	// the memory is used again.
	Add(kvs []*mvccpb.KeyValue)
}

// List is the content of a range for a Store.
type List interface {
	Adder
	// Replace publishes the list as the store's content. A list that a member without a
	// leader gave is stale for that cause, and may be older than what the store has: then
	// it reports false and changes nothing.
	Replace(at Version, stale error) bool
	// Differences compares the content with the list, by key; see Store.Size.
	Differences() map[string]Difference
}

// Version is a revision of the store in one of its epochs, which count from 1.
type Version struct {
	Revision int64
	Epoch    int
}

// Difference is what a key holds in the Store and in etcd, as text that tells writes apart.
type Difference struct{ Store, Etcd string }
