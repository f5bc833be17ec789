// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var errBroken = status.Error(codes.Unavailable, "error reading from server: connection reset")

// pipe is the part of a stream that does not depend on its messages.
type pipe struct {
	ctx        context.Context
	needLeader bool

	mu     sync.Mutex
	err    error // why it ended
	frozen bool  // nothing passes, and neither side can tell
	// Capacity 1: a token says that something may have changed.
	toServer, toClient chan struct{}
}

func newPipe(ctx context.Context) *pipe {
	return &pipe{
		ctx:        ctx,
		needLeader: requiresLeader(ctx),
		toServer:   make(chan struct{}, 1),
		toClient:   make(chan struct{}, 1),
	}
}

// fail ends the stream, even a frozen one. Messages that the server has sent before still arrive.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.frozen = false
	p.wakeLocked()
}

func (p *pipe) setFrozen(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
	p.wakeLocked()
}

func (p *pipe) isFrozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen
}

func (p *pipe) wakeLocked() {
	for _, c := range []chan struct{}{p.toServer, p.toClient} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Context, Header, Trailer, CloseSend, SendMsg and RecvMsg are grpc.ClientStream.

func (p *pipe) Context() context.Context   { return p.ctx }
func (*pipe) Header() (metadata.MD, error) { return nil, nil }
func (*pipe) Trailer() metadata.MD         { return nil }
func (*pipe) CloseSend() error             { return nil }
func (*pipe) SendMsg(any) error            { return errUntyped }
func (*pipe) RecvMsg(any) error            { return errUntyped }

var errUntyped = status.Error(codes.Unimplemented, "fakeetcd: streams are typed")

// stream is both ends of a gRPC stream. Its queues are unbounded, so that a slow client delays no
// other.
type stream[Req, Resp any] struct {
	*pipe
	in  []*Req  // guarded by pipe.mu
	out []*Resp // guarded by pipe.mu
}

func newStream[Req, Resp any](ctx context.Context) *stream[Req, Resp] {
	return &stream[Req, Resp]{pipe: newPipe(ctx)}
}

// Send is the client's Send. Like gRPC's it does not wait for the server.
func (s *stream[Req, Resp]) Send(req *Req) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.ctx.Err() != nil {
		return io.EOF // Recv returns the reason
	}
	s.in = append(s.in, req)
	s.wakeLocked()
	return nil
}

// Recv is the client's Recv.
func (s *stream[Req, Resp]) Recv() (*Resp, error) {
	for {
		if err := s.ctx.Err(); err != nil {
			return nil, status.FromContextError(err).Err()
		}
		s.mu.Lock()
		resp, err := pop(&s.out, s.frozen), s.err
		frozen := s.frozen
		s.mu.Unlock()
		switch {
		case resp != nil:
			return resp, nil
		case err != nil && !frozen:
			return nil, err
		}
		select {
		case <-s.toClient:
		case <-s.ctx.Done():
		}
	}
}

// answer is the server's Send.
func (s *stream[Req, Resp]) answer(resp *Resp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.out = append(s.out, resp)
	s.wakeLocked()
}

// next is the server's Recv; nil means that the stream has ended.
func (s *stream[Req, Resp]) next() *Req {
	for {
		s.mu.Lock()
		req, err := pop(&s.in, s.frozen), s.err
		s.mu.Unlock()
		if err != nil || s.ctx.Err() != nil {
			return nil
		}
		if req != nil {
			return req
		}
		select {
		case <-s.toServer:
		case <-s.ctx.Done():
		}
	}
}

func pop[T any](queue *[]*T, frozen bool) *T {
	if frozen || len(*queue) == 0 {
		return nil
	}
	first := (*queue)[0]
	(*queue)[0] = nil
	*queue = (*queue)[1:]
	return first
}
