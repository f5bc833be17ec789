// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// retryWait is gRPC's and clientv3's wait between tries of a failed call.
// KeepAliveOnce leaves it to them, and without it would never rest.
const retryWait = 25 * time.Millisecond

// leaseClient is etcdserverpb.LeaseClient on a Conn.
type leaseClient struct{ c *Conn }

func (l leaseClient) LeaseGrant(ctx context.Context, r *etcdserverpb.LeaseGrantRequest, _ ...grpc.CallOption) (*etcdserverpb.LeaseGrantResponse, error) {
	call := Call{Method: Grant, Lease: clientv3.LeaseID(r.ID), Request: r}
	return unary(ctx, l.c, call, false, func(s *Store) (*etcdserverpb.LeaseGrantResponse, error) {
		id, ttl, err := s.grantLocked(r.ID, r.TTL)
		if err != nil {
			return nil, err
		}
		return &etcdserverpb.LeaseGrantResponse{Header: l.headerLocked(), ID: id, TTL: ttl}, nil
	})
}

func (l leaseClient) LeaseRevoke(ctx context.Context, r *etcdserverpb.LeaseRevokeRequest, _ ...grpc.CallOption) (*etcdserverpb.LeaseRevokeResponse, error) {
	call := Call{Method: Revoke, Lease: clientv3.LeaseID(r.ID), Request: r}
	return unary(ctx, l.c, call, false, func(s *Store) (*etcdserverpb.LeaseRevokeResponse, error) {
		if err := s.revokeLocked(r.ID); err != nil {
			return nil, err
		}
		return &etcdserverpb.LeaseRevokeResponse{Header: l.headerLocked()}, nil
	})
}

func (l leaseClient) LeaseTimeToLive(ctx context.Context, r *etcdserverpb.LeaseTimeToLiveRequest, _ ...grpc.CallOption) (*etcdserverpb.LeaseTimeToLiveResponse, error) {
	call := Call{Method: TimeToLive, Lease: clientv3.LeaseID(r.ID), Request: r}
	return unary(ctx, l.c, call, false, func(s *Store) (*etcdserverpb.LeaseTimeToLiveResponse, error) {
		resp := &etcdserverpb.LeaseTimeToLiveResponse{Header: l.headerLocked(), ID: r.ID, TTL: -1}
		lease, ok := s.leases[r.ID]
		if !ok {
			return resp, nil
		}
		resp.TTL, resp.GrantedTTL = int64(time.Until(lease.expires)/time.Second), lease.ttl
		if r.Keys {
			for _, key := range s.state.leaseKeys(r.ID) {
				resp.Keys = append(resp.Keys, []byte(key))
			}
		}
		return resp, nil
	})
}

func (l leaseClient) LeaseLeases(ctx context.Context, r *etcdserverpb.LeaseLeasesRequest, _ ...grpc.CallOption) (*etcdserverpb.LeaseLeasesResponse, error) {
	return unary(ctx, l.c, Call{Method: Leases, Request: r}, false, func(s *Store) (*etcdserverpb.LeaseLeasesResponse, error) {
		resp := &etcdserverpb.LeaseLeasesResponse{Header: l.headerLocked()}
		for _, id := range s.leaseIDsLocked() {
			resp.Leases = append(resp.Leases, &etcdserverpb.LeaseStatus{ID: id})
		}
		return resp, nil
	})
}

func (l leaseClient) headerLocked() *etcdserverpb.ResponseHeader {
	return l.c.headerLocked(l.c.store.state.revision)
}

// keepAliveStream carries the keepalives of many leases.
type keepAliveStream = stream[etcdserverpb.LeaseKeepAliveRequest, etcdserverpb.LeaseKeepAliveResponse]

func (l leaseClient) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[etcdserverpb.LeaseKeepAliveRequest, etcdserverpb.LeaseKeepAliveResponse], error) {
	if err := l.c.admit(ctx, Call{Method: KeepAliveStream}); err != nil {
		return nil, l.rest(ctx, err)
	}
	stream := newStream[etcdserverpb.LeaseKeepAliveRequest, etcdserverpb.LeaseKeepAliveResponse](ctx)
	l.c.openStream(stream.pipe, nil)
	go func() {
		defer l.c.closeStream(stream.pipe, nil)
		for {
			req := stream.next()
			if req == nil {
				return
			}
			l.keepAlive(stream, req)
		}
	}()
	return stream, nil
}

// keepAlive answers one keepalive. A member without a leader does not.
func (l leaseClient) keepAlive(stream *keepAliveStream, req *etcdserverpb.LeaseKeepAliveRequest) {
	call := Call{Method: KeepAlive, Lease: clientv3.LeaseID(req.ID), Request: req}
	if err := l.c.note(stream.ctx, call); err != nil {
		stream.fail(l.rest(stream.ctx, err))
		return
	}
	l.c.store.mu.Lock()
	defer l.c.store.mu.Unlock()
	if _, open := l.c.streams[stream.pipe]; !open || l.c.member != nil {
		return
	}
	header := l.headerLocked() // as etcd does, of before the renewal
	stream.answer(&etcdserverpb.LeaseKeepAliveResponse{Header: header, ID: req.ID, TTL: l.c.store.renewLocked(req.ID)})
}

// rest waits before it returns an error that the client tries again at once.
func (l leaseClient) rest(ctx context.Context, err error) error {
	if code := status.Code(err); code == codes.Unavailable || code == codes.Internal {
		select {
		case <-time.After(retryWait):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	return err
}
