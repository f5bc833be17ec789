// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"io"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// maxSend is clientv3's default bound of what it sends, in bytes.
const maxSend = 2 << 20

// kvClient is etcdserverpb.KVClient on a Conn.
type kvClient struct{ c *Conn }

// fakeKV is a KV of clientv3 that tells which service it asks.
type fakeKV struct {
	clientv3.KV
	remote kvClient
}

// KVClient returns the service.
func (k fakeKV) KVClient() etcdserverpb.KVClient { return k.remote }

func (k kvClient) Range(ctx context.Context, r *etcdserverpb.RangeRequest, _ ...grpc.CallOption) (*etcdserverpb.RangeResponse, error) {
	call := Call{Method: Get, Key: string(r.Key), End: string(r.RangeEnd), Revision: r.Revision, Request: r}
	return unary(ctx, k.c, call, r.Serializable, func(*Store) (*etcdserverpb.RangeResponse, error) {
		if err := checkRange(r); err != nil {
			return nil, err
		}
		return k.c.rangeLocked(r)
	})
}

func (c *Conn) rangeLocked(r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	view := c.viewLocked()
	latest := view.revision
	if r.Serializable {
		latest = max(latest-c.lag, view.compacted, 1)
	}
	if err := view.checkRevision(r.Revision, latest); err != nil {
		return nil, err
	}
	resp := view.read(r, latest)
	resp.Header = c.headerLocked(latest)
	return resp, nil
}

// RangeStream fails, if it does, on the stream and not here, as gRPC does.
func (k kvClient) RangeStream(ctx context.Context, r *etcdserverpb.RangeRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[etcdserverpb.RangeStreamResponse], error) {
	call := Call{Method: GetStream, Key: string(r.Key), End: string(r.RangeEnd), Revision: r.Revision, Request: r}
	stream := newStream[etcdserverpb.RangeRequest, etcdserverpb.RangeStreamResponse](ctx)
	parts, err := unary(ctx, k.c, call, r.Serializable, func(*Store) ([]*etcdserverpb.RangeResponse, error) {
		return k.c.chunksLocked(r)
	})
	for _, part := range parts {
		stream.answer(&etcdserverpb.RangeStreamResponse{RangeResponse: part})
	}
	if err == nil {
		err = k.c.takeTear(len(parts), stream)
	}
	stream.fail(err)
	return stream, nil
}

func (c *Conn) chunksLocked(r *etcdserverpb.RangeRequest) ([]*etcdserverpb.RangeResponse, error) {
	if c.chunk <= 0 {
		return nil, status.Error(codes.Unimplemented, "unknown method RangeStream for service etcdserverpb.KV")
	}
	if err := checkRangeStream(r); err != nil {
		return nil, err
	}
	whole, err := c.rangeLocked(r)
	if err != nil {
		return nil, err
	}
	return chunks(whole, c.chunk), nil
}

// takeTear returns how a stream of n chunks ends, and drops what a tear leaves
// unsent.
func (c *Conn) takeTear(n int, s *stream[etcdserverpb.RangeRequest, etcdserverpb.RangeStreamResponse]) error {
	c.store.mu.Lock()
	torn := c.torn
	c.torn = nil
	c.store.mu.Unlock()
	if torn == nil {
		return io.EOF
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = s.out[:min(n, torn.after)]
	return torn.err
}

func (k kvClient) Put(ctx context.Context, r *etcdserverpb.PutRequest, _ ...grpc.CallOption) (*etcdserverpb.PutResponse, error) {
	call := Call{Method: Put, Key: string(r.Key), Lease: clientv3.LeaseID(r.Lease), Request: r}
	return unary(ctx, k.c, call, false, func(s *Store) (resp *etcdserverpb.PutResponse, err error) {
		if err := checkPut(r); err != nil {
			return nil, err
		}
		if err := s.checkSizeLocked(r); err != nil {
			return nil, err
		}
		s.writeLocked(func(w *write) {
			if err = w.checkPut(r); err == nil {
				resp = w.put(r)
				resp.Header = k.c.headerLocked(w.current())
			}
		})
		return resp, err
	})
}

func (k kvClient) DeleteRange(ctx context.Context, r *etcdserverpb.DeleteRangeRequest, _ ...grpc.CallOption) (*etcdserverpb.DeleteRangeResponse, error) {
	call := Call{Method: Delete, Key: string(r.Key), End: string(r.RangeEnd), Request: r}
	return unary(ctx, k.c, call, false, func(s *Store) (resp *etcdserverpb.DeleteRangeResponse, err error) {
		if err := checkKey(r.Key); err != nil {
			return nil, err
		}
		s.writeLocked(func(w *write) {
			resp = w.remove(r)
			resp.Header = k.c.headerLocked(w.current())
		})
		return resp, nil
	})
}

func (k kvClient) Txn(ctx context.Context, r *etcdserverpb.TxnRequest, _ ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	return unary(ctx, k.c, Call{Method: Txn, Request: r}, false, func(s *Store) (resp *etcdserverpb.TxnResponse, err error) {
		if err := checkTxn(r, s.maxOps); err != nil {
			return nil, err
		}
		if err := s.checkSizeLocked(r); err != nil {
			return nil, err
		}
		s.writeLocked(func(w *write) {
			if resp, err = w.txn(r); err == nil {
				resp.Header = k.c.headerLocked(w.current())
			}
		})
		return resp, err
	})
}

func (k kvClient) Compact(ctx context.Context, r *etcdserverpb.CompactionRequest, _ ...grpc.CallOption) (*etcdserverpb.CompactionResponse, error) {
	call := Call{Method: Compact, Revision: r.Revision, Request: r}
	return unary(ctx, k.c, call, false, func(s *Store) (*etcdserverpb.CompactionResponse, error) {
		if err := s.state.compact(r.Revision); err != nil {
			return nil, err
		}
		return &etcdserverpb.CompactionResponse{Header: k.c.headerLocked(s.state.revision)}, nil
	})
}

// checkSizeLocked fails for requests over the limit of the client or the server.
func (s *Store) checkSizeLocked(r proto.Message) error {
	switch size := proto.Size(r); {
	case size > maxSend:
		return status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, maxSend)
	case size > s.maxBytes:
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}
