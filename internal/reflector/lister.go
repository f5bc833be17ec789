// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// maxBatch is how many lists are begun together where the server has no lower limit of the
// operations in a transaction; its default is 128.
const maxBatch = 100

// lister reads ranges. All lists of a client pass its limiter. Those that wait for their turn
// are begun together by the next that has its own: a program that follows thousands of
// services asks for a hundred of them at once.
type lister struct {
	client  *clientv3.Client
	monitor *etcdconn.Monitor
	limiter *limiter
	batch   atomic.Int64 // how many lists are begun together, at most
	paged   atomic.Bool  // see etcdkv.List
	lists   atomic.Uint64
}

func newLister(client *clientv3.Client, monitor *etcdconn.Monitor) *lister {
	password := client.Username != "" && client.Password != "" && client.Token == ""
	l := &lister{client: client, monitor: monitor, limiter: newLimiter(password)}
	l.batch.Store(maxBatch)
	l.paged.Store(password) // clientv3 logs in for each stream
	return l
}

// query is a list to be read.
type query struct {
	keys         etcdkv.KeyRange
	serializable bool         // from one member alone, else linearizable
	newList      func() Adder // what the keys are read into
	answered     func()       // is told of each answer; nil: nobody follows the range
}

// admit waits for a turn, to be ended with limiter.leave, or until another list has begun that
// of a range, nil for none. During an outage a question that needs a leader is not asked: the
// outage's cause is its answer.
func (l *lister) admit(ctx context.Context, serializable bool, keys *etcdkv.KeyRange) (*turn, error) {
	for {
		status, changed := l.monitor.Status()
		if serializable {
			changed = nil
		} else if status.Outage != nil {
			return nil, status.Outage.Cause
		}
		if t, err := l.limiter.enter(ctx, changed, keys); t != nil || err != nil {
			return t, err
		}
	}
}

// list reads a range. Each single answer has etcdkv.CallTimeout. If a list of a range that
// somebody follows fails, the connection is checked before others have their turn.
func (l *lister) list(ctx context.Context, q query) (at etcdkv.Header, err error) {
	keys := &q.keys
	if q.serializable {
		keys = nil
	}
	t, err := l.admit(ctx, q.serializable, keys)
	if err != nil {
		return at, err
	}
	page := t.page
	if !t.admitted {
		if t.err != nil || page != nil && page.Whole() {
			return l.read(ctx, q, page, t.err)
		}
		if t, err = l.admit(ctx, false, nil); err != nil {
			return at, err
		}
	}
	defer func() {
		if q.answered != nil && err != nil && !etcdkv.ConcernsRange(err) {
			l.monitor.Recheck(ctx)
		}
		l.limiter.leave(ctx, err)
	}()
	if t.keys != nil {
		l.begin(ctx, t)
		page = t.page
	}
	return l.read(ctx, q, page, t.err)
}

// begin asks for the first page of a list that has its turn, and of those that wait for theirs,
// if any. They are to begin by themselves where etcd refuses them together, where this one was
// given up, and where etcd was unavailable for a moment: clientv3 tries a range again then, but
// not a transaction.
func (l *lister) begin(ctx context.Context, t *turn) {
	taken := l.limiter.take(int(l.batch.Load()) - 1)
	if len(taken) == 0 {
		return
	}
	turns := append([]*turn{t}, taken...)
	ranges := make([]etcdkv.KeyRange, len(turns))
	for i, t := range turns {
		ranges[i] = *t.keys
	}
	pages, err := etcdkv.FirstPages(ctx, l.client, ranges)
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		l.batch.Store(max(1, int64(len(turns)/2)))
	}
	alone := ctx.Err() != nil || etcdkv.MayPassAlone(err)
	for i, t := range turns {
		if err == nil {
			t.page = pages[i]
		} else if !alone {
			t.err = err
		}
	}
	for _, t := range taken {
		close(t.ready)
	}
}

// read reads a range, from its first page on if there is one.
func (l *lister) read(ctx context.Context, q query, first *etcdkv.Page, err error) (etcdkv.Header, error) {
	if err != nil {
		return etcdkv.Header{}, err
	}
	l.lists.Add(1)
	var list Adder
	restart := func() { list = q.newList() }
	restart()
	return etcdkv.List{Client: l.client, Range: q.keys, Serializable: q.serializable, Paged: &l.paged,
		Add:     func(kvs []*mvccpb.KeyValue) { list.Add(kvs) },
		Restart: restart,
		Answered: func() {
			l.limiter.answer()
			if q.answered != nil {
				q.answered()
			}
		}}.Read(ctx, first)
}

// newest returns the number of keys in a range and the greatest ModRevision, linearizably.
func (l *lister) newest(ctx context.Context, r etcdkv.KeyRange) (keys int64, modRevision int64, at etcdkv.Header, err error) {
	if _, err := l.admit(ctx, false, nil); err != nil {
		return 0, 0, at, err
	}
	defer func() { l.limiter.leave(ctx, err) }()
	resp, err := etcdkv.GetRange(clientv3.WithRequireLeader(ctx), l.client, r, append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)
	if err != nil {
		return 0, 0, at, err
	}
	l.limiter.answer()
	if len(resp.Kvs) > 0 {
		modRevision = resp.Kvs[0].ModRevision
	}
	return resp.Count, modRevision, etcdkv.Header{Revision: resp.Header.Revision, Term: resp.Header.RaftTerm}, nil
}
