// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// pageSize bounds one answer of a list in pages: 5,000 keys with 250 bytes each are
// the 1.25 MiB that fit a server's default limits for a message.
const pageSize = 5000

// Header is where the store stood when it was listed.
type Header struct {
	Revision int64
	Term     uint64 // of raft, of the member that answered
}

// List is how a range is listed.
type List struct {
	Client       *clientv3.Client
	Range        KeyRange
	Serializable bool                     // from the member alone, else linearizable, with a leader required
	Add          func([]*mvccpb.KeyValue) // takes the keys, sorted, part by part while the list arrives
	Answered     func()                   // is told of every answer
}

// Stream lists by RangeStream, which servers before 3.7 do not have: codes.Unimplemented.
// Each part must arrive within CallTimeout of the one before. The channel is always
// drained: the client's goroutine behind it would wait for ever otherwise.
func (l List) Stream(ctx context.Context) (at Header, err error) {
	parent := ctx
	ctx, cancel := context.WithCancel(l.context(ctx))
	defer cancel()
	silence := time.AfterFunc(CallTimeout, cancel)
	defer silence.Stop()
	parts, err := l.Client.GetStream(ctx, l.Range.Key, l.options()...)
	if err != nil {
		return Header{}, Explain(parent, l.Client, err)
	}
	for part := range parts {
		if err != nil {
			continue
		}
		if err = Typed(part.Err()); err != nil {
			continue
		}
		l.Answered()
		silence.Stop()
		l.Add(part.Kvs) // while the next one arrives
		silence.Reset(CallTimeout)
		if part.Header != nil && part.Header.Revision > 0 {
			at = Header{part.Header.Revision, part.Header.RaftTerm}
		}
	}
	if err := Explain(parent, l.Client, cmp.Or(err, ctx.Err())); err != nil {
		return Header{}, err
	}
	if at.Revision == 0 {
		return Header{}, errors.New("list ended without a revision")
	}
	return at, nil
}

// Pages lists in answers of up to 5,000 keys, all at the first one's revision. Where
// compaction outruns the pages twice it asks for everything in one answer. Restart is
// called before a list begins anew.
func (l List) Pages(ctx context.Context, restart func()) (at Header, err error) {
	ctx = l.context(ctx)
	for try := 1; ; try++ {
		limit := int64(pageSize)
		if try == 3 {
			limit = 0
		}
		at, err := l.pages(ctx, limit)
		if try == 3 || !errors.Is(err, rpctypes.ErrCompacted) {
			return at, err
		}
		restart()
	}
}

// pages decodes one page while the next one is fetched.
func (l List) pages(ctx context.Context, limit int64) (at Header, err error) {
	key := l.Range.Key
	var decoding sync.WaitGroup
	for {
		// The first page is of the newest revision, 0; the others are of the same one.
		page, err := Get(ctx, l.Client, key, l.options(clientv3.WithRev(at.Revision), clientv3.WithLimit(limit))...)
		decoding.Wait()
		if err != nil {
			return Header{}, err
		}
		l.Answered()
		if at.Revision == 0 {
			at = Header{page.Header.Revision, page.Header.RaftTerm}
		}
		if !page.More || len(page.Kvs) == 0 {
			l.Add(page.Kvs)
			return at, nil
		}
		decoding.Go(func() { l.Add(page.Kvs) })
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

func (l List) options(more ...clientv3.OpOption) []clientv3.OpOption {
	if l.Serializable {
		more = append(more, clientv3.WithSerializable())
	}
	return l.Range.options(more...)
}

// context requires a leader where the answer must be linearizable: a member without one
// says so at once instead of waiting for its own time-out.
func (l List) context(ctx context.Context) context.Context {
	if l.Serializable {
		return ctx
	}
	return clientv3.WithRequireLeader(ctx)
}
