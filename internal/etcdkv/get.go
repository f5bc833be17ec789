// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	// CallTimeout bounds every call to etcd.
	CallTimeout = 5 * time.Second
	// stateTimeout bounds the question why a connection is down, which no member is asked.
	stateTimeout = 250 * time.Millisecond
)

// Get is the client's Get within CallTimeout. Where that runs out, the error says why etcd
// did not answer.
func Get(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	call, cancel := bounded(ctx)
	defer cancel()
	resp, err := client.Get(call, key, opts...)
	return resp, Explain(ctx, client, err)
}

// bounded returns a context that ends after CallTimeout.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithTimeout(ctx, CallTimeout)
	return untold{call, ctx}, cancel
}

// untold is the context of a call, and tells of no deadline but the caller's: gRPC would send that of
// the call along, and both sides would work for it. See the scenarios cold of module bench.
type untold struct {
	context.Context
	caller context.Context
}

func (u untold) Deadline() (time.Time, bool) { return u.caller.Deadline() }

// GetRange is Get for a range.
func GetRange(ctx context.Context, client *clientv3.Client, r KeyRange, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return Get(ctx, client, r.Key, r.options(opts...)...)
}

// Explain returns the error of a call. Where only the call's own time had run out, and not
// the caller's ctx, it is the reason why etcd did not answer.
func Explain(ctx context.Context, client *clientv3.Client, err error) error {
	code := status.Code(err)
	switch {
	case err == nil:
		return nil
	case client.Ctx().Err() != nil:
		return ErrClientClosed
	case ctx.Err() != nil:
		return err
	case code != codes.Canceled && code != codes.DeadlineExceeded && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if cause := Disconnected(ctx, client); cause != nil {
		return cause
	}
	return NoAnswer(client)
}

// Disconnected returns why the client's connection is down, nil where it is not.
func Disconnected(ctx context.Context, client *clientv3.Client) error {
	conn := client.ActiveConnection()
	if conn == nil {
		return nil
	}
	if state := conn.GetState(); state != connectivity.TransientFailure && state != connectivity.Connecting {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	// A call that does not wait for the connection answers with its last error.
	_, err := pb.NewKVClient(conn).Range(ctx,
		&pb.RangeRequest{Key: []byte("\x00"), Serializable: true, CountOnly: true}, grpc.WaitForReady(false))
	switch status.Code(err) {
	case codes.Unavailable:
		return fmt.Errorf("etcd at %s: %w", strings.Join(client.Endpoints(), ", "), err)
	case codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("%w: still connecting", NoAnswer(client))
	}
	return nil // it answered, if only with a refusal
}

// LogsIn reports whether a client has a password to log in with. Clientv3 does so for each stream, and
// where the token of a call is refused.
func LogsIn(client *clientv3.Client) bool {
	return client.Username != "" && client.Password != "" && client.Token == ""
}
