// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pageSize bounds one answer of a list in pages: 5,000 keys with 250 bytes each are
// the 1.25 MiB that fit a server's default limits for a message.
const pageSize = 5000

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

// list reads the span, linearizably unless serializable. Each single answer has callTimeout.
// The feed that the list is for, nil where nobody follows it, is told of every answer; if it
// fails the connection is checked before others have their turn.
func (l *lister) list(ctx context.Context, s span, serializable bool, f *feed) (got listing, err error) {
	if err := l.admit(ctx, serializable); err != nil {
		return listing{}, err
	}
	defer func() {
		if f != nil && err != nil && !ofSpan(err) {
			l.link.doubt(ctx)
		}
		l.gate.leave(ctx, err)
	}()
	l.lists.Add(1)
	r := reading{lister: l, span: s, opts: serializableOption(serializable), heard: func() {
		l.gate.answer()
		if f != nil {
			f.hears()
		}
	}}
	ctx = listContext(ctx, serializable)
	if s.end != "" && !l.paged.Load() {
		got, err := r.stream(ctx)
		if status.Code(err) != codes.Unimplemented {
			return got, err
		}
		l.paged.Store(true)
	}
	for try := 1; ; try++ {
		limit := int64(pageSize)
		if try == 3 { // compaction outran the pages twice: one answer, whatever its size
			limit = 0
		}
		got, err := r.pages(ctx, limit)
		if try == 3 || !errors.Is(err, rpctypes.ErrCompacted) {
			return got, err
		}
	}
}

// ofSpan reports whether an error is about the span that was asked for, and not about the
// connection.
func ofSpan(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrCompacted)
}

// first reads the first key of the span in the order that opts give, linearizably.
func (l *lister) first(ctx context.Context, s span, opts ...clientv3.OpOption) (resp *clientv3.GetResponse, err error) {
	if err := l.admit(ctx, false); err != nil {
		return nil, err
	}
	defer func() { l.gate.leave(ctx, err) }()
	resp, err = get(listContext(ctx, false), l.client, s.key, s.options(opts...)...)
	if err == nil {
		l.gate.answer()
	}
	return resp, err
}

// reading is how a span is read.
type reading struct {
	*lister
	span  span
	opts  []clientv3.OpOption
	heard func()
}

// stream lists by RangeStream. The channel is always drained: the client's goroutine
// behind it would wait for ever otherwise.
func (r reading) stream(ctx context.Context) (got listing, err error) {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(callTimeout, cancel)
	defer silence.Stop()
	chunks, err := r.client.GetStream(ctx, r.span.key, r.options()...)
	if err != nil {
		return listing{}, unanswered(parent, r.client, err)
	}
	for chunk := range chunks {
		if err != nil {
			continue
		}
		if err = typed(chunk.Err()); err != nil {
			continue
		}
		r.heard()
		silence.Reset(callTimeout)
		got.add(chunk.Kvs) // while the next one arrives
		if chunk.Header != nil && chunk.Header.Revision > 0 {
			got.revision, got.term = chunk.Header.Revision, chunk.Header.RaftTerm
		}
	}
	if err := unanswered(parent, r.client, cmp.Or(err, ctx.Err())); err != nil {
		return listing{}, err
	}
	if got.revision == 0 {
		return listing{}, errors.New("list ended without a revision")
	}
	return got, nil
}

// pages lists in answers of at most limit keys, all at the first one's revision. One is
// decoded while the next is fetched.
func (r reading) pages(ctx context.Context, limit int64) (got listing, err error) {
	key := r.span.key
	var decoding sync.WaitGroup
	for {
		// The first page is of the newest revision, 0; the others are of the same one.
		page, err := get(ctx, r.client, key, r.options(clientv3.WithRev(got.revision), clientv3.WithLimit(limit))...)
		decoding.Wait()
		if err != nil {
			return listing{}, err
		}
		r.heard()
		if got.revision == 0 {
			got.revision, got.term = page.Header.Revision, page.Header.RaftTerm
		}
		if !page.More || len(page.Kvs) == 0 {
			got.add(page.Kvs)
			return got, nil
		}
		decoding.Go(func() { got.add(page.Kvs) })
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// options are the span's end, what all parts of the list have in common, and more.
func (r reading) options(more ...clientv3.OpOption) []clientv3.OpOption {
	return r.span.options(append(more, r.opts...)...)
}

// listContext asks for a leader where the answer must be linearizable: a member
// without one says so at once instead of waiting for its own time-out.
func listContext(ctx context.Context, serializable bool) context.Context {
	if serializable {
		return ctx
	}
	return clientv3.WithRequireLeader(ctx)
}

func serializableOption(serializable bool) []clientv3.OpOption {
	if serializable {
		return []clientv3.OpOption{clientv3.WithSerializable()}
	}
	return nil
}

// get is a Get with the deadline that every call has. Its error is never that deadline's.
func get(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := client.Get(call, key, opts...)
	return resp, unanswered(ctx, client, err)
}
