// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// ender ends the watches of a client under it.
type ender struct {
	mu      sync.Mutex
	streams []*endable
}

func (n *ender) intercept(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil || method != pb.Watch_Watch_FullMethodName {
		return s, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streams = append(n.streams, &endable{ClientStream: s, watches: make(map[int64]bool)})
	return n.streams[len(n.streams)-1], nil
}

// end has the member cancel every watch, as if the client had asked for it; with eof the
// client sees its streams end instead.
func (n *ender) end(eof bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.streams {
		s.end(eof)
	}
	n.streams = nil
}

type endable struct {
	grpc.ClientStream
	mu      sync.Mutex // also orders messages: gRPC takes one at a time
	watches map[int64]bool
	eof     bool
}

func (s *endable) SendMsg(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ClientStream.SendMsg(m)
}

func (s *endable) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	resp, ok := m.(*pb.WatchResponse)
	switch {
	case s.eof:
		return io.EOF
	case err == nil && ok && resp.Created && !resp.Canceled:
		s.watches[resp.WatchId] = true
	}
	return err
}

func (s *endable) end(eof bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eof = eof
	for id := range s.watches { // on a stream that has ended already nobody hears it
		_ = s.ClientStream.SendMsg(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
	}
}

// A watch that the member cancels without a reason ends as one that the client cancelled:
// its channel is closed, and no error says why. A stream that ends tells its end.
func TestW13WatchEndsWithoutReason(t *testing.T) {
	t.Parallel()
	for name, eof := range map[string]bool{"cancelled": false, "end of stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) { watchEnds(e, eof) })
		})
	}
}

func watchEnds(e *lab.Env, eof bool) {
	var under ender
	client := e.ClientWith(func(cfg *clientv3.Config) {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainStreamInterceptor(under.intercept))
	})
	put(e, "a")
	channel := e.ResolveBy(e.BuilderOf(client), e.Target)
	e.Shows(channel, addrs("a")...)
	var f *lab.Follower
	if e.Ours() {
		f = lab.FollowWith(e.T, client, e.Target+"/", rollcall.DirectoryOptions{})
		f.Holds("a")
	}
	witness := client.Watch(e.Ctx, "witness", clientv3.WithCreatedNotify())
	<-witness

	under.end(eof)
	ended := time.Now()
	select {
	case resp, ok := <-witness:
		if ok != eof || ok && !errors.Is(resp.Err(), io.EOF) && resp.Err() == nil {
			e.Failf("the fault is another one: %v, %v", resp, ok)
		}
	case <-e.Ctx.Done():
		e.Failf("the fault did not happen")
	}
	put(e, "b")
	e.Shows(channel, addrs("a", "b")...)
	e.Within("a change after the end", ended, time.Second)
	if f == nil {
		return
	}
	f.Holds("a", "b")

	// The end by our own Close is another: nothing is opened again.
	f.Sub.Close()
	watches := f.Directory.Stats().Watches
	time.Sleep(time.Second)
	if got := f.Directory.Stats(); got.Watches != watches || got.Services != 0 {
		e.Failf("after Close: %+v, want %d watches and no service", got, watches)
	}
}

// A client that is closed under its Directory ends every watch the same way; that is
// said, and nothing is tried again.
func TestW13ClientClosed(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, lab.Start(t, etcdtest.Options{}), "svc")
	client := e.ClientWith()
	put(e, "a")
	f := lab.FollowWith(t, client, "svc/", rollcall.DirectoryOptions{})
	f.Holds("a")
	client.Close()
	if cause := f.GoesStale().Cause; cause == nil {
		t.Error("no cause")
	} else {
		t.Logf("cause: %v", cause)
	}
	time.Sleep(time.Second)
	watches := f.Directory.Stats().Watches
	time.Sleep(2 * time.Second)
	if got := f.Directory.Stats().Watches; got != watches {
		t.Errorf("%d watches were opened on a client that is closed", got-watches)
	}
}
