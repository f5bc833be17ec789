// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// check proves the way: that etcd answers where the connection is in doubt or no watch can
// tell, then the stream where it has been silent, then, if suspected, the history.
func (l *link) check(ctx context.Context) error {
	if cause := etcdkv.Disconnected(ctx, l.client); cause != nil {
		return cause
	}
	_, readable := l.anyFeed()
	l.mu.Lock()
	down := l.verdict.down != nil
	ask := l.doubted || down || !readable
	probe := readable && (down || !l.spoke || time.Since(l.heard) >= silenceBound)
	suspect := l.suspect
	l.suspect = false
	l.mu.Unlock()
	err := l.prove(ctx, ask, probe, suspect)
	if err != nil {
		l.mu.Lock()
		l.suspect = l.suspect || suspect
		l.mu.Unlock()
	}
	return err
}

func (l *link) prove(ctx context.Context, ask, probe, suspect bool) error {
	if ask {
		if err := l.ask(ctx); err != nil {
			return err
		}
	}
	if probe {
		if err := l.probe(ctx); err != nil {
			return fmt.Errorf("watch stream: %w", err)
		}
	}
	if suspect {
		if err := l.verify(ctx); err != nil {
			return fmt.Errorf("verify history: %w", err)
		}
	}
	return nil
}

// ask asks etcd for a key, linearizably. A refusal is an answer as well. clientv3's own
// retries, which would repeat for seconds that there is no leader, are passed by, unless the
// token was refused: then clientv3 logs in, once for all that wait for the answer.
func (l *link) ask(ctx context.Context) error {
	err := rpctypes.ErrInvalidAuthToken
	if conn := l.client.ActiveConnection(); conn != nil { // nil: a client made of parts, as the tests' is
		call, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), etcdkv.CallTimeout)
		defer cancel()
		_, err = pb.NewKVClient(conn).Range(call, &pb.RangeRequest{Key: []byte(l.key()), CountOnly: true}, grpc.WaitForReady(false))
		err = etcdkv.Explain(ctx, l.client, rpctypes.Error(err))
	}
	if etcdkv.TokenRefused(err) {
		_, err = etcdkv.Get(clientv3.WithRequireLeader(ctx), l.client, l.key(), clientv3.WithCountOnly())
	}
	if err != nil && !etcdkv.IsAnswer(err) {
		if errors.As(err, new(rpctypes.EtcdError)) {
			err = fmt.Errorf("etcd at %s: %w", strings.Join(l.client.Endpoints(), ", "), err)
		}
		return err
	}
	if _, readable := l.anyFeed(); !readable {
		l.mu.Lock()
		l.heard = time.Now() // there is no stream to hear
		l.mu.Unlock()
	}
	return nil
}

// verify asks etcd, linearizably, which history it has. A span that may not be read any more
// cannot tell, and another one is tried; its watch may live on, and is what says so to its feed.
func (l *link) verify(ctx context.Context) error {
	for _, key := range l.readable(verifyTries) {
		before := l.seen()
		resp, err := etcdkv.Get(clientv3.WithRequireLeader(ctx), l.client, key)
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			continue
		}
		if err == nil {
			l.sawAnswer(resp.Header.Revision, resp.Header.RaftTerm, before)
			l.mu.Lock()
			l.verified = time.Now()
			l.mu.Unlock()
		}
		return err
	}
	return nil
}

// probe proves that the watch stream lives, by a second, short watch on it: clientv3
// sends it over the same gRPC stream and the member answers with a created notice.
// (A progress request would not do: a member leaves it unanswered while one of the
// stream's watches waits for a revision that the store has not reached, which is the
// usual state in an idle cluster.) A stream that does not answer is given up.
func (l *link) probe(ctx context.Context) error {
	v, _ := l.current()
	pctx, cancel := context.WithTimeout(l.context(ctx, v.stream), etcdkv.CallTimeout)
	defer cancel()
	resp, ok := <-etcdkv.Watch(pctx, l.client, etcdkv.SingleKey(l.key()), 0)
	switch err := etcdkv.Typed(resp.Err()); {
	case ok && (resp.Created || etcdkv.IsAnswer(err) && (l.heardOf(v.stream) || !etcdkv.TokenRefused(err))):
		l.hear(v.stream, resp.Header)
		if ok && resp.Created && resp.Header.GetClusterId() == 0 {
			l.audit()
		}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		l.replace(v.stream)
		switch {
		case err != nil:
			return err
		case pctx.Err() != nil:
			return etcdkv.NoAnswer(l.client)
		}
		return errWatchEnded
	}
}

// endRetired ends the streams that were given up. clientv3 leaves one open for ever whose
// watches were cancelled before the member had answered, until another watch on it ends.
func (l *link) endRetired(ctx context.Context) {
	l.mu.Lock()
	streams := l.retired
	l.retired = nil
	l.mu.Unlock()
	for _, stream := range streams {
		wctx, cancel := context.WithTimeout(l.context(ctx, stream), etcdkv.CallTimeout)
		resp, ok := <-etcdkv.Watch(wctx, l.client, etcdkv.SingleKey(l.key()), 0)
		cancel()
		if !ok || !resp.Created && !etcdkv.IsAnswer(etcdkv.Typed(resp.Err())) {
			l.mu.Lock()
			l.retired = append(l.retired, stream)
			l.mu.Unlock()
		}
	}
}

// audit has every feed compare itself with the store: behind etcd's grpc-proxy, which
// answers by itself and names no cluster, the stream proves nothing about etcd.
func (l *link) audit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changeLocked(func(v *verdict) { v.audit++ })
}

// heardOf reports whether the watch stream has said something since it was opened.
func (l *link) heardOf(stream uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spoke && stream == l.verdict.stream
}

// anyFeed returns a feed whose span may be read, else any feed, nil where there is none.
func (l *link) anyFeed() (any *feed, readable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, a := range l.feeds {
		if any = f; a == accessGranted {
			return f, true
		}
	}
	return any, false
}

// readable returns a key of each of at most n feeds whose span may be read.
func (l *link) readable(n int) (keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, a := range l.feeds {
		if a == accessGranted && len(keys) < n {
			keys = append(keys, f.span.Key)
		}
	}
	return keys
}

// key returns a key to ask for.
func (l *link) key() string {
	if f, _ := l.anyFeed(); f != nil {
		return f.span.Key
	}
	return "\x00"
}
