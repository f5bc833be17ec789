// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
)

type manager struct {
	client    *clientv3.Client
	directory *rollcall.Directory
	target    string
	written   atomic.Int64 // revision of the last write
}

// NewManager returns the manager of a target, such as "foo/bar/my-service", whose endpoints
// are the keys under "foo/bar/my-service/". It fails if the client is nil or the target empty.
// All managers of a client share one watch for each target.
func NewManager(client *clientv3.Client, target string) (Manager, error) {
	if client == nil {
		return nil, errors.New("endpoints: the etcd client is nil")
	}
	if target == "" {
		return nil, errors.New("endpoints: the target is empty; use the name of a service, such as foo/bar/my-service")
	}
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return nil, err
	}
	return &manager{client: client, directory: directory, target: target}, nil
}

// LimitError reports that an Update was larger than the server accepts in a request. Nothing
// was written.
type LimitError struct {
	Operations int   // number of operations
	Bytes      int   // approximate size of keys and values
	Cause      error // the server's error
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("endpoints: update of %d operations and %d bytes is over a limit of the server "+
		"(by default 128 operations, --max-txn-ops, and 1.5 MiB, --max-request-bytes); nothing was written; split it: %v",
		e.Operations, e.Bytes, e.Cause)
}

// Unwrap returns the server's error.
func (e *LimitError) Unwrap() error { return e.Cause }

// GRPCStatus returns InvalidArgument.
func (e *LimitError) GRPCStatus() *status.Status {
	return status.New(codes.InvalidArgument, e.Error())
}

func (m *manager) Update(ctx context.Context, updates []*UpdateWithOpts) error {
	ops := make([]clientv3.Op, 0, len(updates))
	deleted := make(map[string]int) // index in ops of the deletion of a single key
	size := 0
	for _, update := range updates {
		op, err := m.operation(update)
		if err != nil {
			return err
		}
		size += len(op.KeyBytes()) + len(op.ValueBytes())
		// etcd accepts a key only once in a transaction. Its documentation shows a deletion
		// before an addition of the same key, which amounts to the addition.
		if i, ok := deleted[update.Key]; ok && update.Op == Add {
			ops[i] = op
			delete(deleted, update.Key)
			continue
		}
		if update.Op == Delete && len(update.Opts) == 0 {
			deleted[update.Key] = len(ops)
		}
		ops = append(ops, op)
	}
	resp, err := m.client.Txn(ctx).Then(ops...).Commit()
	switch {
	case overLimit(err):
		return &LimitError{Operations: len(ops), Bytes: size, Cause: err}
	case err != nil:
		return err
	}
	m.noteWrites(resp)
	return nil
}

// noteWrites notes the revision of a transaction, if it has changed anything.
func (m *manager) noteWrites(resp *clientv3.TxnResponse) {
	wrote := func(op *etcdserverpb.ResponseOp) bool {
		return op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0
	}
	if !slices.ContainsFunc(resp.Responses, wrote) {
		return
	}
	for was := m.written.Load(); was < resp.Header.Revision; was = m.written.Load() {
		if m.written.CompareAndSwap(was, resp.Header.Revision) {
			return
		}
	}
}

// overLimit reports whether the server or the client found a request too large.
func overLimit(err error) bool {
	return errors.Is(err, rpctypes.ErrTooManyOps) || errors.Is(err, rpctypes.ErrRequestTooLarge) ||
		status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max")
}

func (m *manager) operation(update *UpdateWithOpts) (clientv3.Op, error) {
	if update == nil {
		return clientv3.Op{}, status.Error(codes.InvalidArgument, "endpoints: update is nil")
	}
	if !strings.HasPrefix(update.Key, m.target+"/") {
		return clientv3.Op{}, status.Errorf(codes.InvalidArgument, "endpoints: key %q is not under %q", update.Key, m.target+"/")
	}
	switch update.Op {
	case Add:
		if err := rollcall.CheckKey(update.Key); err != nil {
			return clientv3.Op{}, status.Errorf(codes.InvalidArgument, "endpoints: %v", err)
		}
		value, err := rollcall.Encode(update.Endpoint.Addr, update.Endpoint.Metadata)
		if err != nil {
			return clientv3.Op{}, status.Errorf(codes.InvalidArgument, "endpoints: key %q: %v", update.Key, err)
		}
		return build(update, func() clientv3.Op { return clientv3.OpPut(update.Key, string(value), update.Opts...) },
			func(op clientv3.Op) bool { return op.IsPut() && bytes.Equal(op.ValueBytes(), value) })
	case Delete:
		return build(update, func() clientv3.Op { return clientv3.OpDelete(update.Key, update.Opts...) }, clientv3.Op.IsDelete)
	}
	return clientv3.Op{}, status.Errorf(codes.InvalidArgument, "endpoints: key %q: unknown operation %d", update.Key, update.Op)
}

// build makes an update's operation and checks that the options have changed neither its kind
// nor its key. It checks the operation, not the options, since there may be new options. If
// clientv3 panics on an option, build returns an error.
func build(update *UpdateWithOpts, make func() clientv3.Op, intended func(clientv3.Op) bool) (op clientv3.Op, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = status.Errorf(codes.InvalidArgument, "endpoints: key %q: its options do not fit the operation: %v", update.Key, problem)
		}
	}()
	op = make()
	if !intended(op) || string(op.KeyBytes()) != update.Key || len(op.RangeBytes()) > 0 {
		return clientv3.Op{}, status.Errorf(codes.InvalidArgument,
			"endpoints: key %q: its options extend the operation to other keys or values; use an Update for each key", update.Key)
	}
	return op, nil
}

func (m *manager) AddEndpoint(ctx context.Context, key string, endpoint Endpoint, opts ...clientv3.OpOption) error {
	return m.Update(ctx, []*UpdateWithOpts{NewAddUpdateOpts(key, endpoint, opts...)})
}

func (m *manager) DeleteEndpoint(ctx context.Context, key string, opts ...clientv3.OpOption) error {
	return m.Update(ctx, []*UpdateWithOpts{NewDeleteUpdateOpts(key, opts...)})
}

func (m *manager) List(ctx context.Context) (Key2EndpointMap, error) {
	snap, err := m.directory.ListPrefix(ctx, m.target+"/")
	if err != nil {
		return nil, err
	}
	all := make(Key2EndpointMap, snap.Len())
	for inst := range snap.All() {
		all[inst.Key] = endpointOf(inst)
	}
	return all, nil
}

// endpointOf converts an instance and decodes its metadata.
func endpointOf(inst *rollcall.Instance) Endpoint {
	ep := Endpoint{Addr: strings.Clone(inst.Addr)} // without the value, which the instance's may be a part of
	if inst.Metadata != nil {
		// Decode has checked that it is JSON.
		_ = json.Unmarshal(inst.Metadata, &ep.Metadata)
	}
	return ep
}
