// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// requestTimeout is how long etcd looks for a leader before it gives a call up.
const requestTimeout = 7 * time.Second

// Method names what is called, counted and made to fail.
type Method string

// The calls. A Watch is one create message on a WatchStream, a KeepAlive one
// message on a KeepAliveStream; a Watch is sent again when the watch is resumed.
const (
	Get             Method = "Get"
	GetStream       Method = "GetStream"
	Put             Method = "Put"
	Delete          Method = "Delete"
	Txn             Method = "Txn"
	Compact         Method = "Compact"
	Grant           Method = "Grant"
	Revoke          Method = "Revoke"
	TimeToLive      Method = "TimeToLive"
	Leases          Method = "Leases"
	KeepAlive       Method = "KeepAlive"
	KeepAliveStream Method = "KeepAliveStream"
	Watch           Method = "Watch"
	WatchStream     Method = "WatchStream"
	Progress        Method = "Progress"
)

// Call is what a hook sees. Lists that begin together are a Txn: what is to be refused wherever it is
// read goes by Reads.
type Call struct {
	Method   Method
	Key, End string           // of Get, GetStream, Put, Delete and Watch
	Revision int64            // of Get, GetStream, Compact and Watch (where it starts)
	Lease    clientv3.LeaseID // of Put and the leases' calls
	Request  any              // the etcdserverpb message; nil when a stream opens
}

// Reads returns the keys that the call is about or that a transaction reads if its conditions hold:
// the first of each range.
func (c Call) Reads() []string {
	txn, ok := c.Request.(*etcdserverpb.TxnRequest)
	if !ok {
		return []string{c.Key}
	}
	var keys []string
	for _, op := range txn.Success {
		if r := op.GetRequestRange(); r != nil {
			keys = append(keys, string(r.Key))
		}
	}
	return keys
}

// Conn is a client and its way to a Store.
type Conn struct {
	// Client has KV, Watcher and Lease; all else in it is nil.
	Client *clientv3.Client

	store *Store

	// Guarded by store.mu.
	cut     chan struct{} // nil while the link is up, closed when it is mended
	member  *state        // nil while the member has a leader, else what it knew then
	lag     int64
	lost    int      // how many answers to lose
	delayed int      // how many writes to delay
	late    []func() // the delayed writes
	chunk   int      // 0: no GetStream
	torn    *tear
	hook    func(context.Context, Call) error
	calls   map[Method]int
	once    map[Method][]error
	always  map[Method]error
	streams map[*pipe]struct{}
	watches map[*watchStream]struct{}
}

// tear is where a GetStream breaks.
type tear struct {
	after int
	err   error
}

func newConn(ctx context.Context, s *Store) *Conn {
	c := &Conn{
		Client:  clientv3.NewCtxClient(ctx),
		store:   s,
		calls:   make(map[Method]int),
		once:    make(map[Method][]error),
		always:  make(map[Method]error),
		streams: make(map[*pipe]struct{}),
		watches: make(map[*watchStream]struct{}),
	}
	c.Client.KV = fakeKV{clientv3.NewKVFromKVClient(kvClient{c}, c.Client), kvClient{c}}
	c.Client.Watcher = fakeWatcher{clientv3.NewWatchFromWatchClient(watchClient{c}, c.Client), watchClient{c}}
	// A second stands for a client without a DialTimeout.
	c.Client.Lease = clientv3.NewLeaseFromLeaseClient(leaseClient{c}, c.Client, time.Second)
	return c
}

// Close closes the client and ends all that waits on it.
func (c *Conn) Close() {
	_ = c.Client.Close() // its error is always that its context is cancelled
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	delete(c.store.conns, c)
	c.failStreamsLocked(errClosing, anyStream)
}

// Calls returns how often a method was called, failed calls included.
func (c *Conn) Calls(m Method) int {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.calls[m]
}

// Watches returns the number of watches that are open at the server.
func (c *Conn) Watches() int {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.watchesLocked()
}

func (c *Conn) watchesLocked() int {
	n := 0
	for ws := range c.watches {
		n += len(ws.watchers)
	}
	return n
}

var errClosing = status.Error(codes.Canceled, "grpc: the client connection is closing")

// admit counts a call, asks the hook and the faults about it, and waits for the
// link.
func (c *Conn) admit(ctx context.Context, call Call) error {
	if err := c.note(ctx, call); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		if c.Client.Ctx().Err() != nil {
			return errClosing
		}
		c.store.mu.Lock()
		cut := c.cut
		c.store.mu.Unlock()
		if cut == nil {
			return nil
		}
		select {
		case <-cut:
		case <-ctx.Done():
		case <-c.Client.Ctx().Done():
		}
	}
}

// note counts a call and asks the hook and the faults about it.
func (c *Conn) note(ctx context.Context, call Call) error {
	c.store.mu.Lock()
	c.calls[call.Method]++
	hook := c.hook
	c.store.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, call); err != nil {
			return asStatus(err)
		}
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if queue := c.once[call.Method]; len(queue) > 0 {
		c.once[call.Method] = queue[1:]
		return asStatus(queue[0])
	}
	return asStatus(c.always[call.Method])
}

// unary runs a call: admitted, led, applied, and perhaps its answer lost.
func unary[R any](ctx context.Context, c *Conn, call Call, local bool, apply func(s *Store) (R, error)) (R, error) {
	var none R
	if err := c.admit(ctx, call); err != nil {
		return none, err
	}
	if err := c.awaitLeader(ctx, local); err != nil {
		return none, err
	}
	txn, _ := call.Request.(*etcdserverpb.TxnRequest)
	write := call.Method == Put || call.Method == Grant || txn != nil && !readOnly(txn)
	c.store.mu.Lock()
	if write && c.delayed > 0 {
		c.delayed--
		c.late = append(c.late, func() { _, _ = apply(c.store) })
		c.store.mu.Unlock()
		return none, c.wait(ctx, nil)
	}
	resp, err := apply(c.store)
	lost := err == nil && c.lost > 0 && write
	if lost {
		c.lost--
	}
	c.store.mu.Unlock()
	if !lost {
		return resp, err
	}
	return none, c.wait(ctx, nil)
}

// awaitLeader lets a call pass that the member can answer. local: without others.
func (c *Conn) awaitLeader(ctx context.Context, local bool) error {
	c.store.mu.Lock()
	led := c.member == nil
	c.store.mu.Unlock()
	switch {
	case led:
		return nil
	case requiresLeader(ctx):
		return rpctypes.ErrGRPCNoLeader
	case local:
		return nil
	}
	return c.wait(ctx, time.After(requestTimeout))
}

// wait returns when the call is given up.
func (c *Conn) wait(ctx context.Context, timeout <-chan time.Time) error {
	select {
	case <-timeout:
		return rpctypes.ErrGRPCTimeout
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-c.Client.Ctx().Done():
		return errClosing
	}
}

// viewLocked is what this client's member knows.
func (c *Conn) viewLocked() *state {
	if c.member != nil {
		return c.member
	}
	return c.store.state
}

func (c *Conn) headerLocked(revision int64) *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{
		ClusterId: ClusterID,
		MemberId:  MemberID,
		Revision:  revision,
		RaftTerm:  c.store.term,
	}
}

// asStatus makes of an error what a gRPC client would have received.
func asStatus(err error) error {
	var known rpctypes.EtcdError
	switch {
	case errors.As(err, &known):
		return status.Error(known.Code(), known.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return err
}

func requiresLeader(ctx context.Context) bool {
	md, _ := metadata.FromOutgoingContext(ctx)
	values := md.Get(rpctypes.MetadataRequireLeaderKey)
	return len(values) > 0 && values[0] == rpctypes.MetadataHasLeader
}
