// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// lister reads ranges. All lists of a client pass its limiter.
type lister struct {
	client  *clientv3.Client
	monitor *etcdconn.Monitor
	limiter *limiter
	paged   atomic.Bool // see etcdkv.List
	lists   atomic.Uint64
}

func newLister(client *clientv3.Client, monitor *etcdconn.Monitor) *lister {
	password := client.Username != "" && client.Password != "" && client.Token == ""
	l := &lister{client: client, monitor: monitor, limiter: newLimiter(password)}
	l.paged.Store(password) // clientv3 logs in for each stream
	return l
}

// admit waits for a turn, to be ended with limiter.leave. During an outage a question that
// needs a leader is not asked: the outage's cause is its answer.
func (l *lister) admit(ctx context.Context, serializable bool) error {
	for {
		status, changed := l.monitor.Status()
		if serializable {
			changed = nil
		} else if status.Outage != nil {
			return status.Outage.Cause
		}
		if admitted, err := l.limiter.enter(ctx, changed); admitted || err != nil {
			return err
		}
	}
}

// query is a list to be read.
type query struct {
	keys         etcdkv.KeyRange
	serializable bool         // from one member alone, else linearizable
	newList      func() Adder // what the keys are read into
	answered     func()       // is told of each answer; nil: nobody follows the range
}

// list reads a range. Each single answer has etcdkv.CallTimeout. If a list of a range that
// somebody follows fails, the connection is checked before others have their turn.
func (l *lister) list(ctx context.Context, q query) (at etcdkv.Header, err error) {
	if err := l.admit(ctx, q.serializable); err != nil {
		return at, err
	}
	defer func() {
		if q.answered != nil && err != nil && !etcdkv.ConcernsRange(err) {
			l.monitor.Recheck(ctx)
		}
		l.limiter.leave(ctx, err)
	}()
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
		}}.Read(ctx)
}

// newest returns the number of keys in a range and the greatest ModRevision, linearizably.
func (l *lister) newest(ctx context.Context, r etcdkv.KeyRange) (keys int64, modRevision int64, at etcdkv.Header, err error) {
	if err := l.admit(ctx, false); err != nil {
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
