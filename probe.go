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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// check proves the way: the stream first, then, if suspected, the history.
func (l *link) check(ctx context.Context) error {
	if cause, down := l.disconnected(ctx); down {
		return cause
	}
	if err := l.probe(ctx); err != nil {
		return fmt.Errorf("watch stream: %w", err)
	}
	l.mu.Lock()
	suspect := l.suspect
	l.suspect = false
	l.mu.Unlock()
	if !suspect {
		return nil
	}
	if err := l.verify(ctx); err != nil {
		l.mu.Lock()
		l.suspect = true
		l.mu.Unlock()
		return fmt.Errorf("verify history: %w", err)
	}
	return nil
}

// verify asks etcd, linearizably, which history it has. What may not be read cannot tell;
// with nothing that may be read there is no snapshot to be wrong about.
func (l *link) verify(ctx context.Context) error {
	for {
		f, readable := l.anyFeed()
		if !readable {
			return nil
		}
		before := l.seen()
		resp, err := get(clientv3.WithRequireLeader(ctx), l.client, f.span.key)
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			l.readable(f, false)
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
}

// disconnected says whether the connection itself is down, and why.
func (l *link) disconnected(ctx context.Context) (cause error, down bool) {
	l.mu.Lock()
	state := l.conn
	l.mu.Unlock()
	if state != connectivity.TransientFailure && state != connectivity.Connecting {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, connectGrace/4)
	defer cancel()
	// A call that does not wait for the connection answers with its last error.
	_, err := pb.NewKVClient(l.client.ActiveConnection()).Range(ctx,
		&pb.RangeRequest{Key: []byte(l.key()), Serializable: true, CountOnly: true}, grpc.WaitForReady(false))
	if err == nil {
		return nil, false
	}
	endpoints := strings.Join(l.client.Endpoints(), ", ")
	switch status.Code(err) {
	case codes.Unavailable:
		return fmt.Errorf("etcd at %s: %w", endpoints, err), true
	case codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("%w at %s: still connecting", ErrNoAnswer, endpoints), true
	}
	return nil, false // it answered, if only with a refusal
}

// probe proves that the watch stream lives, by a second, short watch on it: clientv3
// sends it over the same gRPC stream and the member answers with a created notice.
// (A progress request would not do: a member leaves it unanswered while one of the
// stream's watches waits for a revision that the store has not reached, which is the
// usual state in an idle cluster.) A stream that does not answer is given up.
func (l *link) probe(ctx context.Context) error {
	v, _ := l.current()
	pctx, cancel := context.WithTimeout(l.context(ctx, v.stream), callTimeout)
	defer cancel()
	resp, ok := <-openWatch(pctx, l.client, keySpan(l.key()), 0)
	switch err := typed(resp.Err()); {
	case ok && (resp.Created || answered(err)):
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
			return fmt.Errorf("%w within %v", ErrNoAnswer, callTimeout)
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
		wctx, cancel := context.WithTimeout(l.context(ctx, stream), callTimeout)
		resp, ok := <-openWatch(wctx, l.client, keySpan(l.key()), 0)
		cancel()
		if !ok || !resp.Created && !answered(typed(resp.Err())) {
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

// answered says whether an error is a member's own answer, hence a sign of life.
func answered(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision) || errors.Is(err, rpctypes.ErrUserEmpty)
}

// anyFeed returns a feed whose span may be read, else any feed, nil where there is none.
func (l *link) anyFeed() (any *feed, readable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, may := range l.feeds {
		if any = f; may {
			return f, true
		}
	}
	return any, false
}

// key returns a key to ask for.
func (l *link) key() string {
	if f, _ := l.anyFeed(); f != nil {
		return f.span.key
	}
	return "\x00"
}
