// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// reopenPause is the least time from one stream that breaks to the next: else each of thousands of
// watches that are opened anew at their own times would cost a stream.
const reopenPause = 100 * time.Millisecond

// watchStream is a gRPC stream of watches: one goroutine receives and another one sends.
//
// Etcd answers requests for watches in their order. Its grpc-proxy does not, and gives watches
// other ids than they ask for: there, and until the first answer shows which it is, each request waits
// for the answer to the one before.
type watchStream struct {
	all        *Watches
	generation uint64
	ctx        context.Context
	cancel     context.CancelFunc
	running    sync.WaitGroup
	wake       chan struct{} // capacity 1: there may be something to send
	foreign    bool          // the client's own Watcher serves the watches: nothing is sent or received here

	// Guarded by Watches.mu.
	ended      bool
	unsent     []*Watch
	unanswered []*Watch         // in the order of their requests
	created    map[int64]*Watch // by the server's ids
	closed     []int64          // watches that the server is to end
	lastID     int64
	ordered    bool              // the server gives watches the ids that they ask for
	partial    *pb.WatchResponse // the fragments so far
}

func newWatchStream(all *Watches) *watchStream {
	s := &watchStream{all: all, generation: all.generation.Load(), wake: make(chan struct{}, 1), created: make(map[int64]*Watch)}
	s.ctx, s.cancel = context.WithCancel(clientv3.WithRequireLeader(all.client.Ctx()))
	if remote := watchClient(all.client); remote != nil {
		wait := time.Until(all.notBefore)
		s.running.Go(func() { s.run(remote, wait) })
		return s
	}
	// Clientv3 shares a gRPC stream among watches of equal metadata, other libraries' included.
	s.ctx, s.foreign = metadata.AppendToOutgoingContext(s.ctx, "rollcall-watches", rand.Text()), true
	return s
}

// addLocked opens a watch.
func (s *watchStream) addLocked(w *Watch) {
	if s.foreign {
		s.adoptLocked(w)
		return
	}
	s.unsent = append(s.unsent, w)
	backoff.Wake(s.wake)
}

// closeLocked ends a watch that is no longer wanted.
func (s *watchStream) closeLocked(w *Watch) {
	if w.ended {
		return
	}
	if i := slices.Index(s.unsent, w); i >= 0 {
		s.unsent = slices.Delete(s.unsent, i, i+1)
	} else if s.created[w.id] == w {
		s.cancelLocked(w)
	} // else its answer is awaited
	s.finishLocked(w)
}

// cancelLocked has the server end a watch.
func (s *watchStream) cancelLocked(w *Watch) {
	if w.cancel != nil {
		w.cancel()
		return
	}
	s.closed = append(s.closed, w.id)
	backoff.Wake(s.wake)
}

// finishLocked notes that a watch has ended.
func (s *watchStream) finishLocked(w *Watch) {
	if w.ended = true; s.created[w.id] == w {
		delete(s.created, w.id)
	}
}

// failLocked ends a watch that etcd has ended, unless nobody wants it any more.
func (s *watchStream) failLocked(w *Watch, header *pb.ResponseHeader, err error) {
	if !w.ended {
		w.push(WatchResponse{Header: header, Err: err})
		s.finishLocked(w)
	}
}

// endLocked ends the stream with all its watches.
func (s *watchStream) endLocked(err error) {
	if s.ended {
		return
	}
	s.ended, s.all.stream = true, nil
	s.cancel()
	for _, w := range slices.Concat(s.unsent, s.unanswered) {
		s.failLocked(w, nil, err)
	}
	for _, w := range s.created {
		s.failLocked(w, nil, err)
	}
	s.unsent, s.unanswered, s.created = nil, nil, nil
}

func (s *watchStream) run(remote pb.WatchClient, wait time.Duration) {
	_ = backoff.Sleep(s.ctx, wait, nil)
	began := time.Now()
	stream, err := remote.Watch(s.ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32)) // clientv3's default
	if err == nil {
		s.running.Go(func() { s.send(stream) })
		err = s.receive(stream)
	}
	switch {
	case s.all.client.Ctx().Err() != nil:
		err = ErrClientClosed
	case errors.Is(err, io.EOF):
		err = errWatchEnded
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if !s.ended {
		s.all.notBefore = began.Add(reopenPause)
	}
	s.endLocked(rpctypes.Error(err))
}

func (s *watchStream) send(stream pb.Watch_WatchClient) {
	for {
		for reqs := s.next(); len(reqs) > 0; reqs = s.next() {
			for _, req := range reqs {
				if stream.Send(req) != nil {
					return // Recv tells why
				}
			}
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// next returns what is to be sent now.
func (s *watchStream) next() (reqs []*pb.WatchRequest) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	for _, id := range s.closed {
		reqs = append(reqs, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
	}
	s.closed = nil
	for len(s.unsent) > 0 && (s.ordered || len(s.unanswered) == 0) {
		w := s.unsent[0]
		s.unsent, s.unanswered = s.unsent[1:], append(s.unanswered, w)
		s.lastID++
		w.id = s.lastID
		reqs = append(reqs, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(w.keys.Key), RangeEnd: []byte(w.keys.End), StartRevision: w.revision, WatchId: w.id,
			ProgressNotify: true, Fragment: true}}})
	}
	return reqs
}

func (s *watchStream) receive(stream pb.Watch_WatchClient) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if !resp.Canceled {
			s.all.observe(s.generation, resp.Header)
		}
		s.all.mu.Lock()
		s.takeLocked(resp)
		s.all.mu.Unlock()
	}
}

func (s *watchStream) takeLocked(resp *pb.WatchResponse) {
	if p := s.partial; p != nil && p.WatchId == resp.WatchId && !resp.Created && !resp.Canceled {
		p.Events, p.Fragment = append(p.Events, resp.Events...), resp.Fragment
		resp = p
	}
	s.partial = nil
	w := s.created[resp.WatchId]
	switch {
	case resp.Created:
		s.takeAnswerLocked(resp)
	case w == nil: // it was closed
	case resp.Fragment:
		s.partial = resp
	case resp.Canceled:
		// Where etcd has compacted its revision, the server keeps it until it is cancelled, and a
		// grpc-proxy has the next watch of the range join it.
		s.cancelLocked(w)
		s.failLocked(w, resp.Header, cancelCause(resp.CompactRevision, resp.CancelReason))
	default:
		w.push(WatchResponse{Header: resp.Header, Events: resp.Events})
	}
}

// takeAnswerLocked takes in the answer to a request for a watch.
func (s *watchStream) takeAnswerLocked(resp *pb.WatchResponse) {
	if len(s.unanswered) == 0 {
		return
	}
	w := s.unanswered[0]
	s.unanswered = s.unanswered[1:]
	switch {
	case resp.Canceled:
		s.failLocked(w, resp.Header, cancelCause(resp.CompactRevision, resp.CancelReason))
	case w.ended:
		w.id = resp.WatchId
		s.cancelLocked(w)
	default:
		s.ordered = resp.WatchId == w.id
		w.id = resp.WatchId
		s.created[w.id] = w
		w.push(WatchResponse{Header: resp.Header, Created: true})
	}
	if len(s.unsent) > 0 {
		backoff.Wake(s.wake)
	}
}

// cancelCause returns why the server has ended a watch.
func cancelCause(compacted int64, reason string) error {
	switch {
	case compacted > 0:
		return rpctypes.ErrCompacted
	case reason != "":
		return Typed(rpctypes.Error(errors.New(reason))) // a grpc-proxy gives the description alone
	}
	return errWatchEnded
}

// adoptLocked has the client's own Watcher serve a watch.
func (s *watchStream) adoptLocked(w *Watch) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.lastID++
	w.id, w.cancel = s.lastID, cancel
	s.created[w.id] = w
	s.running.Go(func() {
		defer cancel()
		var err error
		for resp := range callWatch(ctx, s.all.client, w.keys, w.revision) {
			if err = Typed(resp.Err()); err != nil {
				break
			}
			s.all.observe(s.generation, resp.Header)
			s.all.mu.Lock()
			if !w.ended {
				w.push(WatchResponse{Header: resp.Header, Events: resp.Events, Created: resp.Created})
			}
			s.all.mu.Unlock()
		}
		s.all.mu.Lock()
		defer s.all.mu.Unlock()
		s.failLocked(w, nil, cmp.Or(err, errWatchEnded))
	})
}
