// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"slices"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// listing is a span's content at one revision.
type listing struct {
	instances []*Instance // sorted by key
	rejected  []*Invalid  // sorted by key
	revision  int64
	term      uint64
}

// add decodes the next part of the list.
func (l *listing) add(kvs []*mvccpb.KeyValue) {
	l.instances = slices.Grow(l.instances, len(kvs))
	for _, kv := range kvs {
		if e := decodeEntry(kv); e.instance != nil {
			l.instances = append(l.instances, e.instance)
		} else {
			l.rejected = append(l.rejected, e.rejected)
		}
	}
}

// lister reads spans. All lists of a Directory pass its gate.
type lister struct {
	client *clientv3.Client
	link   *link
	gate   *gate
	paged  atomic.Bool // in pages, not by stream: the server, or a proxy before it, has no RangeStream
	lists  atomic.Uint64
}

func newLister(client *clientv3.Client, link *link) *lister {
	password := client.Username != "" && client.Password != "" && client.Token == ""
	l := &lister{client: client, link: link, gate: newGate(password)}
	l.paged.Store(password) // or clientv3 logs in for each stream
	return l
}

// admit waits for a turn, to be ended with gate.leave. While the link is down a question
// that needs a leader is not asked: the link's cause is its answer.
func (l *lister) admit(ctx context.Context, serializable bool) error {
	for {
		v, changed := l.link.current()
		if serializable {
			changed = nil
		} else if v.down != nil {
			return v.down.Cause
		}
		if admitted, err := l.gate.enter(ctx, changed); admitted || err != nil {
			return err
		}
	}
}

// list reads the span, linearizably unless serializable. Each single answer has a call's time-out.
// The feed that the list is for, nil where nobody follows it, is told of every answer; if it
// fails the connection is checked before others have their turn.
func (l *lister) list(ctx context.Context, s etcdkv.KeyRange, serializable bool, f *feed) (got listing, err error) {
	if err := l.admit(ctx, serializable); err != nil {
		return listing{}, err
	}
	defer func() {
		if f != nil && err != nil && !etcdkv.ConcernsRange(err) {
			l.link.doubt(ctx)
		}
		l.gate.leave(ctx, err)
	}()
	l.lists.Add(1)
	r := etcdkv.List{Client: l.client, Range: s, Serializable: serializable, Add: got.add, Answered: func() {
		l.gate.answer()
		if f != nil {
			f.hears()
		}
	}}
	at, err := l.read(ctx, r, func() { got = listing{} })
	if err != nil {
		return listing{}, err
	}
	got.revision, got.term = at.Revision, at.Term
	return got, nil
}

// read lists by stream where the server can, else in pages. Restart is called where what has
// been added is to be forgotten.
func (l *lister) read(ctx context.Context, r etcdkv.List, restart func()) (etcdkv.Header, error) {
	if !r.Range.IsSingleKey() && !l.paged.Load() {
		at, err := r.Stream(ctx)
		if status.Code(err) != codes.Unimplemented {
			return at, err
		}
		l.paged.Store(true)
	}
	return r.Pages(ctx, restart)
}

// first reads the first key of the span in the order that opts give, linearizably.
func (l *lister) first(ctx context.Context, s etcdkv.KeyRange, opts ...clientv3.OpOption) (resp *clientv3.GetResponse, err error) {
	if err := l.admit(ctx, false); err != nil {
		return nil, err
	}
	defer func() { l.gate.leave(ctx, err) }()
	resp, err = etcdkv.GetRange(clientv3.WithRequireLeader(ctx), l.client, s, opts...)
	if err == nil {
		l.gate.answer()
	}
	return resp, err
}
