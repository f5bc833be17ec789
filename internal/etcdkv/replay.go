// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

const (
	// replayAsk is how often etcd is asked whether it has sent everything: it says nothing while
	// it has not.
	replayAsk = 50 * time.Millisecond
	// replaySilence bounds the wait for a message: a member reads all events of its store at once.
	replaySilence = 30 * time.Second
	// proxySilence ends a replay through etcd's grpc-proxy, which does not answer that question.
	proxySilence = time.Second
)

// errProxySilent ends a watch through a proxy that has sent what it had.
var errProxySilent = errors.New("nothing more from the proxy")

// Replay reads the past of a range, as far as etcd still has it.
type Replay struct {
	Client *clientv3.Client
	Range  KeyRange
	Events func([]*clientv3.Event) // takes the events in order, each with the key-value before it
	// Restart is called where compaction outran the replay: what was taken is no longer complete,
	// and events follow from a later revision.
	Restart func()
}

// Replayed is what a Replay covered.
type Replayed struct {
	First, Last int64 // revisions, both included; First is after Last where there is nothing to cover
	Compacted   bool  // what was before First has been compacted
	Keys        int64 // that the range has now
	Cluster     uint64
}

// Read reads what happened from a revision on, 0 for all of it, up to the present.
func (r Replay) Read(ctx context.Context, from int64) (at Replayed, err error) {
	now, err := GetRange(clientv3.WithRequireLeader(ctx), r.Client, r.Range, clientv3.WithCountOnly())
	if err != nil {
		return at, err
	}
	at = Replayed{First: max(from, 1), Last: now.Header.Revision, Keys: now.Count, Cluster: now.Header.ClusterId}
	for at.First <= at.Last {
		last, compacted, err := r.watch(ctx, at.First, at.Last)
		if compacted == 0 {
			at.Last = max(at.Last, last)
			return at, Explain(ctx, r.Client, err)
		}
		// From the revision after it on, every event has the key-value before it.
		at.First, at.Compacted = compacted+1, true
		r.Restart()
	}
	return at, nil
}

// watch takes the events from a revision on, until etcd has sent all up to another one. It
// returns the revision up to which it has, or else that of a compaction that outran it.
func (r Replay) watch(ctx context.Context, from, to int64) (last, compacted int64, err error) {
	// A stream of its own: an answer to the question is for all watches of a stream.
	ctx, cancel := context.WithCancelCause(metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "rollcall-replay", fmt.Sprintf("%p", &last)))
	defer cancel(nil)
	patience, silence := replaySilence, NoAnswer(r.Client)
	silent := time.AfterFunc(patience, func() { cancel(silence) })
	defer silent.Stop()
	events := callWatch(ctx, r.Client, r.Range, from, clientv3.WithPrevKV())
	ask := time.NewTicker(replayAsk)
	defer ask.Stop()
	for {
		select {
		case resp, ok := <-events:
			err := Typed(resp.Err())
			switch {
			case !ok && errors.Is(context.Cause(ctx), errProxySilent):
				return to, 0, nil
			case !ok:
				return 0, 0, cmp.Or(context.Cause(ctx), errWatchEnded)
			case errors.Is(err, rpctypes.ErrCompacted) && resp.CompactRevision > 0:
				return 0, resp.CompactRevision, nil
			case err != nil:
				return 0, 0, err
			case resp.IsProgressNotify() && resp.Header.Revision >= to:
				return resp.Header.Revision, 0, nil
			case resp.Created && resp.Header.GetClusterId() == 0: // a proxy's own answer
				patience, silence = proxySilence, errProxySilent
			}
			silent.Reset(patience)
			r.Events(resp.Events)
		case <-ask.C:
			if err := r.Client.RequestProgress(ctx); err != nil && ctx.Err() == nil {
				return 0, 0, err
			}
		}
	}
}
