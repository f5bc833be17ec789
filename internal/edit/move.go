// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// Moved is what Move did.
type Moved struct {
	Keys         []string // the new ones of endpoints
	Left         []string // old keys under a lease, which stay beside the new ones
	Config       bool     // the service config was moved
	Transactions int
	Revision     int64
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

// ExistsError is returned where something else is under a new name.
type ExistsError struct{ Key string }

func (e *ExistsError) Error() string { return fmt.Sprintf("%q exists already", e.Key) }

// InterruptedError is returned for a Move of which etcd has done a part at most. Another Move of the same services does
// the rest.
type InterruptedError struct {
	From, To              string
	Keys, Copied, Deleted int // of the old name; etcd may have done the transaction that failed as well
	Err                   error
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("move service %q to %q: %v; so far %d of %d keys are copied, and %d of the old ones deleted", e.From, e.To, e.Err, e.Copied, e.Keys, e.Deleted)
}

func (e *InterruptedError) Unwrap() error { return e.Err }

// MoveOptions say what a Move may do.
type MoveOptions struct {
	CopyLeased bool // copy keys under a lease, under the same lease; the old ones stay
	MayEmpty   bool // leave the old service without an endpoint, which is an *EmptiesError otherwise
	DryRun     bool // write nothing
}

// Move gives the keys of a service, and its service config, a new name. All that is new is written before an old key
// is deleted, or together with it. Keys under a lease are a *LeasedError, unless they may be copied.
//
// A copy has the value and the lease of the old key. Whatever else has the new name is an *ExistsError, unless all old
// keys have their copies: then an earlier Move has deleted some, and this one goes on.
func Move(ctx context.Context, client *clientv3.Client, from, to string, opts MoveOptions) (Moved, error) {
	stored, revision, err := Read(ctx, client, []string{from, to})
	if err != nil {
		return Moved{}, err
	}
	m := move{Moved: Moved{Revision: revision}, from: from, to: to, old: stored[from].all(), there: make(map[string]*mvccpb.KeyValue)}
	for _, kv := range stored[to].all() {
		m.there[string(kv.Key)] = kv
	}
	if len(m.old) == 0 {
		return m.Moved, &NotFoundError{Service: from, Revision: revision, NoService: true}
	}
	copies, deletions, err := m.steps()
	switch endpoints := stored[from].Endpoints(); {
	case err != nil:
		return m.Moved, err
	case len(m.Left) > 0 && !opts.CopyLeased:
		return m.Moved, &LeasedError{from, len(m.Left), len(stored[from].Keys)}
	case opts.DryRun:
		return m.Moved, nil
	case endpoints > 0 && len(m.Left) == 0 && !opts.MayEmpty:
		return m.Moved, &EmptiesError{from, endpoints, nested(from, stored[from].names()), to}
	}
	done, err := Commit(ctx, client, append(copies, deletions...))
	if err != nil {
		copied := len(m.old) - len(copies) + min(done.Steps, len(copies))
		return m.Moved, &InterruptedError{from, to, len(m.old), copied, max(done.Steps-len(copies), 0), err}
	}
	m.Transactions, m.Revision = done.Transactions, max(done.Revision, revision)
	return m.Moved, nil
}

type move struct {
	Moved
	from, to string
	old      []*mvccpb.KeyValue          // the service config, too
	there    map[string]*mvccpb.KeyValue // under the new name
}

// steps are one for each key where one transaction can take them; else all copies go before the deletions.
func (m *move) steps() (copies, deletions []Step, err error) {
	others := maps.Clone(m.there)
	for _, kv := range m.old {
		key, lease := string(kv.Key), clientv3.LeaseID(kv.Lease)
		target := m.to + strings.TrimPrefix(key, m.from)
		if key == rollcall.ConfigPrefix+m.from {
			target, m.Config = rollcall.ConfigPrefix+m.to, true
		} else {
			m.Keys = append(m.Keys, target)
		}
		unchanged := map[string]int64{key: kv.ModRevision}
		switch there := m.there[target]; {
		case there == nil:
			put := clientv3.OpPut(target, string(kv.Value), clientv3.WithLease(lease))
			copies = append(copies, Step{map[string]int64{key: kv.ModRevision, target: 0}, []clientv3.Op{put}})
		case string(there.Value) != string(kv.Value) || there.Lease != kv.Lease:
			return nil, nil, &ExistsError{target}
		default:
			unchanged[target] = there.ModRevision
		}
		delete(others, target)
		if lease == clientv3.NoLease {
			deletions = append(deletions, Step{unchanged, []clientv3.Op{clientv3.OpDelete(key)}})
		} else {
			m.Left = append(m.Left, key)
		}
	}
	if strangers := slices.Sorted(maps.Keys(others)); len(strangers) > 0 && len(copies) > 0 {
		return nil, nil, &ExistsError{strangers[0]}
	}
	return copies, deletions, nil
}
