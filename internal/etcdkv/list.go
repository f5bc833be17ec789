// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// firstPage is how many keys are asked for at first: most ranges have no more, and one
	// plain answer is the quickest way to them. The scenarios cold of module bench show it.
	firstPage = 1000
	// sharedPages is how many keys are asked for where several ranges are asked for at once, the
	// same number of each: 2.5 MB with 250 bytes each.
	sharedPages = 100 * 100
	// pageSize bounds one answer of a list in pages: 5,000 keys with 250 bytes each are the
	// 1.25 MiB that fit a server's default limits for a message.
	pageSize = 5000
	// maxOutrun is how often compaction may outrun a list before it is asked for in one answer.
	maxOutrun = 2
)

// Header is where the store stood when it was listed.
type Header struct {
	Revision int64
	Term     uint64 // of raft, of the member that answered
}

// Page is the first page of a range.
type Page struct {
	at   Header
	kvs  []*mvccpb.KeyValue
	more bool
}

// Whole reports whether the page has all keys of its range.
func (p *Page) Whole() bool { return !p.more }

// FirstPages asks for the first page of each of several ranges at once, linearizably and with a
// leader required.
func FirstPages(ctx context.Context, client *clientv3.Client, ranges []KeyRange) ([]*Page, error) {
	limit := min(firstPage, int64(sharedPages/len(ranges)))
	ops := make([]clientv3.Op, len(ranges))
	for i, r := range ranges {
		ops[i] = clientv3.OpGet(r.Key, r.options(clientv3.WithLimit(limit))...)
	}
	call, cancel := bounded(clientv3.WithRequireLeader(ctx))
	defer cancel()
	resp, err := client.Txn(call).Then(ops...).Commit()
	if err := Explain(ctx, client, err); err != nil {
		return nil, err
	}
	pages := make([]*Page, len(ranges))
	for i, r := range resp.Responses {
		page := r.GetResponseRange()
		pages[i] = &Page{Header{resp.Header.Revision, resp.Header.RaftTerm}, page.Kvs, page.More}
	}
	return pages, nil
}

// List is how a range is listed: a first page, then the rest as a stream, at the first page's
// revision, or in more pages.
type List struct {
	Client       *clientv3.Client
	Range        KeyRange
	Serializable bool                     // from the member alone, else linearizable, with a leader required
	Paged        *atomic.Bool             // only in pages; set where the server, a proxy before it or the client's KV has no RangeStream
	Add          func([]*mvccpb.KeyValue) // takes the keys, sorted, part by part while the list arrives; see rangeCodec
	Restart      func()                   // is told that the list begins anew
	Answered     func()                   // is told of every answer
}

// Read lists the range, from its first page on, which is asked for where it is nil. It begins
// anew where compaction outruns it.
func (l List) Read(ctx context.Context, first *Page) (at Header, err error) {
	for try := 0; ; try++ {
		limit := int64(firstPage)
		switch {
		case try == maxOutrun:
			limit = 0
		case l.Paged.Load():
			limit = pageSize
		}
		at, err := l.read(ctx, first, limit)
		if limit == 0 || !errors.Is(err, rpctypes.ErrCompacted) {
			return at, err
		}
		first = nil
		l.Restart()
	}
}

// read decodes each page while the next one is fetched.
func (l List) read(ctx context.Context, page *Page, limit int64) (at Header, err error) {
	var decoding sync.WaitGroup
	defer decoding.Wait()
	for rest := l.Range; ; limit, page = pageSize, nil {
		if page == nil {
			// The first page is of the newest revision, 0; the others are of the same one.
			page, err = l.page(ctx, rest, at.Revision, limit)
		}
		decoding.Wait()
		if err != nil {
			return Header{}, err
		}
		l.Answered()
		if at.Revision == 0 {
			at = page.at
		}
		if page.Whole() || len(page.kvs) == 0 {
			l.Add(page.kvs)
			return at, nil
		}
		kvs := page.kvs
		decoding.Go(func() { l.Add(kvs) })
		rest.Key = string(kvs[len(kvs)-1].Key) + "\x00"
		if l.Paged.Load() {
			continue
		}
		switch err = l.stream(ctx, rest, at.Revision, decoding.Wait); {
		case err == nil:
			return at, nil
		case status.Code(err) != codes.Unimplemented:
			return Header{}, err
		}
		l.Paged.Store(true)
	}
}

func (l List) page(ctx context.Context, rest KeyRange, revision, limit int64) (*Page, error) {
	resp, err := Get(l.context(ctx), l.Client, rest.Key, l.options(rest, clientv3.WithRev(revision), clientv3.WithLimit(limit))...)
	if err != nil {
		return nil, err
	}
	return &Page{Header{resp.Header.Revision, resp.Header.RaftTerm}, resp.Kvs, resp.More}, nil
}

func (l List) options(r KeyRange, more ...clientv3.OpOption) []clientv3.OpOption {
	if l.Serializable {
		more = append(more, clientv3.WithSerializable())
	}
	return r.options(more...)
}

// context requires a leader where the answer must be linearizable: a member without one
// says so at once instead of waiting for its own time-out.
func (l List) context(ctx context.Context) context.Context {
	if l.Serializable {
		return ctx
	}
	return clientv3.WithRequireLeader(ctx)
}
