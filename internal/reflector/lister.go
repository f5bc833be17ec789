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

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// lister reads ranges. All lists of a client pass its limiter. Those that wait for their turn
// are begun together by the next that has its own: a program that follows thousands of
// services asks for a hundred of them at once.
type lister struct {
	client  *clientv3.Client
	monitor *etcdconn.Monitor
	limiter *limiter
	paged   atomic.Bool // see etcdkv.List
	lists   causeCounter
}

func newLister(client *clientv3.Client, monitor *etcdconn.Monitor) *lister {
	password := etcdkv.LogsIn(client)
	l := &lister{client: client, monitor: monitor, limiter: newLimiter(password)}
	l.paged.Store(password) // clientv3 logs in for each stream
	return l
}

// query is a list to be read.
type query struct {
	keys         etcdkv.KeyRange
	cause        Cause
	serializable bool         // from one member alone, else linearizable
	newList      func() Adder // what the keys are read into
	answered     func()       // is told of each answer; nil: nobody follows the range
	turn         *turn        // that was reserved for it; nil: none
}

// answer is where the store stood, and the floor from before it was asked.
type answer struct {
	etcdkv.Header
	floor etcdconn.Floor
}

// admit waits until a turn has come, to be ended with limiter.leave, or until another list has
// begun that of its range. During an outage a question that needs a leader is not asked: the
// outage's cause is its answer.
func (l *lister) admit(ctx context.Context, serializable bool, t *turn) error {
	for {
		status, changed := l.monitor.Status()
		if serializable {
			changed = nil
		} else if status.Outage != nil {
			l.limiter.withdraw(t)
			return status.Outage.Cause
		}
		if entered, err := l.limiter.enter(ctx, changed, t); entered || err != nil {
			return err
		}
	}
}

// list reads a range. Each single answer has etcdkv.CallTimeout. If a list of a range that
// somebody follows fails, the connection is checked before others have their turn.
func (l *lister) list(ctx context.Context, q query) (at answer, err error) {
	t := q.turn
	switch {
	case q.serializable:
		t = l.limiter.reserve(nil)
	case t == nil:
		t = l.limiter.reserve(&q.keys)
	}
	if err := l.admit(ctx, q.serializable, t); err != nil {
		return at, err
	}
	if !t.admitted {
		if t.err != nil || t.page != nil && t.page.Whole() {
			return l.read(ctx, q, t)
		}
		own := l.limiter.reserve(nil)
		if err := l.admit(ctx, false, own); err != nil {
			return at, err
		}
	}
	defer func() {
		if q.answered != nil && err != nil && !etcdkv.ConcernsRange(err) {
			l.monitor.Recheck(ctx)
		}
		l.limiter.leave(ctx, err)
	}()
	background.GrowStack() // only of those that ask etcd
	l.begin(ctx, t)
	return l.read(ctx, q, t)
}

// begin asks for the first page of a list that has its turn, and of those that it is to begin, if
// any. They are to begin by themselves where etcd refuses them together, where this one was
// given up, and where etcd was unavailable for a moment: clientv3 tries a range again then, but
// not a transaction.
func (l *lister) begin(ctx context.Context, t *turn) {
	if len(t.others) == 0 {
		return
	}
	turns := append([]*turn{t}, t.others...)
	ranges := make([]etcdkv.KeyRange, len(turns))
	for i, t := range turns {
		ranges[i] = *t.keys
	}
	floor := l.monitor.Floor()
	pages, err := etcdkv.FirstPages(ctx, l.client, ranges)
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		l.limiter.limitBatch(len(turns))
	}
	alone := ctx.Err() != nil || etcdkv.MayPassAlone(err)
	for i, t := range turns {
		if err == nil {
			t.page, t.floor = pages[i], floor
		} else if !alone {
			t.err = err
		}
	}
	for _, t := range t.others {
		close(t.ready)
	}
}

// read reads a range, from its first page on if its turn has one.
func (l *lister) read(ctx context.Context, q query, t *turn) (at answer, err error) {
	if t.err != nil {
		return at, t.err
	}
	if at.floor = t.floor; t.page == nil {
		at.floor = l.monitor.Floor()
	}
	l.lists.add(q.cause)
	var list Adder
	restart := func() { list = q.newList() }
	restart()
	at.Header, err = etcdkv.List{Client: l.client, Range: q.keys, Serializable: q.serializable, Paged: &l.paged,
		Add:     func(kvs []*mvccpb.KeyValue) { list.Add(kvs) },
		Restart: restart,
		Answered: func() {
			l.limiter.answer()
			if q.answered != nil {
				q.answered()
			}
		}}.Read(ctx, t.page)
	return at, err
}

// newest returns the number of keys in a range and the greatest ModRevision, linearizably.
func (l *lister) newest(ctx context.Context, r etcdkv.KeyRange) (keys int64, modRevision int64, at answer, err error) {
	if err := l.admit(ctx, false, l.limiter.reserve(nil)); err != nil {
		return 0, 0, at, err
	}
	defer func() { l.limiter.leave(ctx, err) }()
	at.floor = l.monitor.Floor()
	resp, err := etcdkv.GetRange(clientv3.WithRequireLeader(ctx), l.client, r, append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)
	if err != nil {
		return 0, 0, at, err
	}
	l.limiter.answer()
	if len(resp.Kvs) > 0 {
		modRevision = resp.Kvs[0].ModRevision
	}
	at.Header = etcdkv.Header{Revision: resp.Header.Revision, Term: resp.Header.RaftTerm}
	return resp.Count, modRevision, at, nil
}
