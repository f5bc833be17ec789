// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
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
	rejected  []*Rejected // sorted by key
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

// lister reads spans. It remembers whether the server streams lists.
type lister struct {
	client     *clientv3.Client
	streamless atomic.Bool // the server, or a proxy before it, has no RangeStream
	lists      atomic.Uint64
}

// list reads the span, linearizably unless serializable. heard, if not nil, is
// called for every answer that arrives. Each single answer has callTimeout.
func (l *lister) list(ctx context.Context, s span, serializable bool, heard func()) (listing, error) {
	if heard == nil {
		heard = func() {}
	}
	l.lists.Add(1)
	opts := serializableOption(serializable)
	if s.end != "" && !l.streamless.Load() {
		got, err := l.stream(listContext(ctx, serializable), s, opts, heard)
		if status.Code(err) != codes.Unimplemented {
			return got, err
		}
		l.streamless.Store(true)
	}
	for try := 1; ; try++ {
		limit := int64(pageSize)
		if try == 3 { // compaction outran the pages twice: one answer, whatever its size
			limit = 0
		}
		got, err := l.pages(listContext(ctx, serializable), s, limit, opts, heard)
		if try == 3 || !errors.Is(err, rpctypes.ErrCompacted) {
			return got, err
		}
	}
}

// stream lists by RangeStream. The channel is always drained: the client's goroutine
// behind it would wait for ever otherwise.
func (l *lister) stream(ctx context.Context, s span, opts []clientv3.OpOption, heard func()) (got listing, err error) {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(callTimeout, cancel)
	defer silence.Stop()
	chunks, err := l.client.GetStream(ctx, s.key, s.options(opts...)...)
	if err != nil {
		return listing{}, err
	}
	for chunk := range chunks {
		if err != nil {
			continue
		}
		if err = typed(chunk.Err()); err != nil {
			continue
		}
		heard()
		silence.Reset(callTimeout)
		got.add(chunk.Kvs) // while the next one arrives
		if chunk.Header != nil && chunk.Header.Revision > 0 {
			got.revision, got.term = chunk.Header.Revision, chunk.Header.RaftTerm
		}
	}
	switch {
	case ctx.Err() != nil && parent.Err() == nil:
		return listing{}, fmt.Errorf("list fell silent: %w", context.DeadlineExceeded)
	case err == nil && got.revision == 0:
		return listing{}, errors.New("list ended without a revision")
	}
	return got, err
}

// pages lists in answers of at most limit keys, all at the first one's revision. One is
// decoded while the next is fetched.
func (l *lister) pages(ctx context.Context, s span, limit int64, opts []clientv3.OpOption, heard func()) (got listing, err error) {
	opts = append(opts[:len(opts):len(opts)], clientv3.WithLimit(limit))
	var decoding sync.WaitGroup
	for {
		// The first page is of the newest revision, 0; the others are of the same one.
		page, err := get(ctx, l.client, s.key, s.options(append(opts[:len(opts):len(opts)], clientv3.WithRev(got.revision))...)...)
		decoding.Wait()
		if err != nil {
			return listing{}, err
		}
		heard()
		if got.revision == 0 {
			got.revision, got.term = page.Header.Revision, page.Header.RaftTerm
		}
		if !page.More || len(page.Kvs) == 0 {
			got.add(page.Kvs)
			return got, nil
		}
		decoding.Go(func() { got.add(page.Kvs) })
		s.key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
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

// get is a Get with the deadline that every call has.
func get(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return client.Get(ctx, key, opts...)
}
