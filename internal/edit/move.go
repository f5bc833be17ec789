// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/rollcall-grpc/rollcall"
)

// Bounds of a Move. It is one transaction, of groups of a transaction a key: the operations of each level together count
// as those that a server allows.
const (
	movesAtOnce = (maxOps - 2) / 2 // on each of two levels; 2 are those of a move
	maxMoves    = movesAtOnce * movesAtOnce
)

// Moved is what Move did.
type Moved struct {
	Keys     []string // the new ones of endpoints
	Left     []string // old keys under a lease, which stay beside the new ones, and the service configs with them
	Configs  []string // the new keys of service configs
	Revision int64
}

// LeasedError is returned for endpoints that processes keep registered.
type LeasedError struct {
	Service string
	Leased  int
	Of      int
}

func (e *LeasedError) Error() string {
	return fmt.Sprintf("service %q has endpoints under a lease, %d of %d: their servers would go on to register there", e.Service, e.Leased, e.Of)
}

// ExistsError is returned where there is something under the new name.
type ExistsError struct{ Key string }

func (e *ExistsError) Error() string { return fmt.Sprintf("%q exists already", e.Key) }

// TooLargeError is returned for what one transaction does not take.
type TooLargeError struct {
	Service     string
	Keys, Bytes int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("service %q has %d keys and %d bytes; one transaction takes %d keys and %d bytes", e.Service, e.Keys, e.Bytes, maxMoves, maxBytes)
}

// MoveOptions say what a Move may do.
type MoveOptions struct {
	CopyLeased bool // copy keys under a lease, under the same lease; the old ones stay
	MayEmpty   bool // leave a service without an endpoint, which is an *EmptiesError otherwise
	DryRun     bool // write nothing
}

// Move gives the keys of a service, and its service config, a new name, with those of the services within it. It is done
// as a whole or, after an error, not at all, but for an error that leaves open whether etcd has done it. Keys under a
// lease are a *LeasedError, unless they may be copied. What is under the new name already is an *ExistsError.
func Move(ctx context.Context, client *clientv3.Client, from, to string, opts MoveOptions) (Moved, error) {
	m, err := readMove(ctx, client, from, to)
	if err != nil {
		return m.Moved, err
	}
	switch err := m.emptied(); {
	case len(m.Left) > 0 && !opts.CopyLeased:
		return m.Moved, &LeasedError{from, len(m.Left), len(m.keys)}
	case len(m.keys)+len(m.configs) > maxMoves || m.bytes() > maxBytes || 2*len(m.configs) > movesAtOnce:
		return m.Moved, &TooLargeError{from, len(m.keys) + len(m.configs), m.bytes()}
	case opts.DryRun:
		return m.Moved, nil
	case err != nil && !opts.MayEmpty:
		return m.Moved, err
	}
	resp, err := client.Txn(ctx).If(m.unchanged()...).Then(grouped(m.moves())...).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return m.Moved, fmt.Errorf("move service %q: %w: this etcd allows fewer than the default, --max-txn-ops=%d; nothing was written", from, err, maxOps)
	case err != nil && !refused(err):
		return m.Moved, fmt.Errorf("move service %q: %w; etcd may have done it nevertheless: then all is under %q", from, err, to+"/")
	case err != nil:
		return m.Moved, fmt.Errorf("move service %q: %w; nothing was written", from, err)
	case !resp.Succeeded:
		return m.Moved, fmt.Errorf("service %q or %q was %w; nothing was written, try again", from, to, ErrChanged)
	}
	m.Revision = resp.Header.Revision
	return m.Moved, nil
}

// refused reports whether etcd has answered that it has not written anything.
func refused(err error) bool {
	var answer rpctypes.EtcdError
	return errors.As(err, &answer) && answer.Code() != codes.Unavailable
}

type move struct {
	Moved
	from, to string
	keys     []*mvccpb.KeyValue // of endpoints, or what is stored as such
	configs  []*mvccpb.KeyValue
}

// readMove reads what is to be moved, and finds out that nothing has the new name.
func readMove(ctx context.Context, client *clientv3.Client, from, to string) (*move, error) {
	stored, revision, err := Read(ctx, client, []string{from, to})
	if err != nil {
		return new(move), err
	}
	m := &move{Moved: Moved{Revision: revision}, from: from, to: to, keys: stored[from].Keys}
	if len(stored[from].all()) == 0 {
		return m, &NotFoundError{Service: from, Revision: revision, NoService: true}
	}
	if there := stored[to].all(); len(there) > 0 {
		return m, &ExistsError{string(there[0].Key)}
	}
	for _, kv := range m.keys {
		m.Keys = append(m.Keys, m.renamed(kv))
		if kv.Lease != 0 {
			m.Left = append(m.Left, string(kv.Key))
		}
	}
	for _, service := range append(nested(from, stored[from].names()), from) {
		resp, err := client.Get(ctx, rollcall.ConfigPrefix+service)
		if err != nil {
			return m, fmt.Errorf("read the service config of %q: %w", service, err)
		}
		for _, kv := range resp.Kvs {
			m.configs, m.Configs = append(m.configs, kv), append(m.Configs, m.renamed(kv))
		}
	}
	return m, nil
}

// renamed returns the new key of an old one.
func (m *move) renamed(kv *mvccpb.KeyValue) string {
	if config, ok := strings.CutPrefix(string(kv.Key), rollcall.ConfigPrefix); ok {
		return rollcall.ConfigPrefix + m.to + strings.TrimPrefix(config, m.from)
	}
	return m.to + strings.TrimPrefix(string(kv.Key), m.from)
}

func (m *move) bytes() (n int) {
	for _, kv := range slices.Concat(m.keys, m.configs) {
		n += 2*len(kv.Key) + len(m.to) + len(kv.Value)
	}
	return n
}

// emptied returns which services the move leaves without an endpoint: the one that is moved, or only some within it.
func (m *move) emptied() error {
	moved, stay := make(map[string]int), make(map[string]bool)
	for _, kv := range m.keys {
		if _, err := rollcall.Decode(kv); err != nil {
			continue
		}
		inner, _ := rollcall.SplitKey(string(kv.Key))
		for _, service := range slices.Compact([]string{m.from, inner}) { // both have the endpoint
			if kv.Lease == 0 {
				moved[service]++
			} else {
				stay[service] = true
			}
		}
	}
	e := &EmptiesError{Service: m.from, Endpoints: moved[m.from], To: m.to}
	for service := range moved {
		if service != m.from && !stay[service] {
			e.Nested = append(e.Nested, service)
		}
	}
	slices.Sort(e.Nested)
	switch {
	case moved[m.from] > 0 && !stay[m.from]:
		return e
	case len(e.Nested) > 0:
		e.Service, e.Nested = e.Nested[0], e.Nested[1:]
		e.Endpoints = moved[e.Service]
		return e
	}
	return nil
}

// unchanged are the conditions: no key of the service was written since it was read, and none has the new name. An
// endpoint that is gone meanwhile is no obstacle.
func (m *move) unchanged() []clientv3.Cmp {
	conditions := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(m.from+"/"), "<", m.Revision+1).WithPrefix(),
		clientv3.Compare(clientv3.CreateRevision(m.to+"/"), "=", 0).WithPrefix(),
	}
	for _, kv := range m.configs {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision),
			clientv3.Compare(clientv3.CreateRevision(m.renamed(kv)), "=", 0))
	}
	return conditions
}

// moves returns a transaction for each key, which does nothing if the key is gone.
func (m *move) moves() (ops []clientv3.Op) {
	for _, kv := range slices.Concat(m.keys, m.configs) {
		key := string(kv.Key)
		writes := []clientv3.Op{clientv3.OpPut(m.renamed(kv), string(kv.Value), clientv3.WithLease(clientv3.LeaseID(kv.Lease)))}
		isConfig := strings.HasPrefix(key, rollcall.ConfigPrefix)
		if kv.Lease == 0 && !(isConfig && len(m.Left) > 0) {
			writes = append(writes, clientv3.OpDelete(key))
		}
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}, writes, nil))
	}
	return ops
}

// grouped returns transactions of up to movesAtOnce operations each.
func grouped(ops []clientv3.Op) (groups []clientv3.Op) {
	for group := range slices.Chunk(ops, movesAtOnce) {
		groups = append(groups, clientv3.OpTxn(nil, group, nil))
	}
	return groups
}
