// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
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
	return fmt.Sprintf("%d of the %d endpoints of service %q are under a lease: their servers would go on to register there", e.Leased, e.Of, e.Service)
}

// ExistsError is returned where something else is under a new name.
type ExistsError struct{ Key string }

func (e *ExistsError) Error() string { return fmt.Sprintf("%q exists already", e.Key) }

// Move gives the keys of a service, and its service config, a new name. All that is new is written before an old key
// is deleted, or together with it. Keys under a lease are a *LeasedError or, with copyLeased, copied under the same
// lease, and stay. What has the new name with the same value already counts as written.
func Move(ctx context.Context, client *clientv3.Client, from, to string, copyLeased bool) (Moved, error) {
	m := move{Moved: Moved{}, from: from, to: to}
	if err := m.read(ctx, client); err != nil {
		return m.Moved, err
	}
	if m.leased > 0 && !copyLeased {
		return m.Moved, &LeasedError{from, m.leased, m.endpoints}
	}
	steps, err := m.steps()
	if err != nil {
		return m.Moved, err
	}
	m.Transactions, m.Revision, err = Commit(ctx, client, steps)
	if errors.Is(err, ErrChanged) {
		return m.Moved, fmt.Errorf("service %q or %q was %w, after %d transactions; try again", from, to, err, m.Transactions)
	}
	return m.Moved, err
}

type move struct {
	Moved
	from, to string
	old      []*mvccpb.KeyValue          // the service config, too
	there    map[string]*mvccpb.KeyValue // under the new name
	// endpoints are the old keys without the service config; leased, those of all under a lease.
	endpoints, leased int
}

func (m *move) read(ctx context.Context, client *clientv3.Client) error {
	var gets []clientv3.Op
	for _, service := range []string{m.from, m.to} {
		gets = append(gets, clientv3.OpGet(service+"/", clientv3.WithPrefix()), clientv3.OpGet(rollcall.ConfigPrefix+service))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return fmt.Errorf("read services %q and %q: %w", m.from, m.to, err)
	}
	m.there = make(map[string]*mvccpb.KeyValue)
	for i, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			if i >= 2 {
				m.there[string(kv.Key)] = kv
				continue
			}
			m.old = append(m.old, kv)
			if i == 0 {
				m.endpoints++
			}
			if kv.Lease != 0 {
				m.leased++
			}
		}
	}
	if len(m.old) == 0 {
		return &NotFoundError{Service: m.from, Revision: resp.Header.Revision, NoService: true}
	}
	return nil
}

// steps are one for each key where one transaction can take them; else all copies go before the deletions.
func (m *move) steps() ([]Step, error) {
	var copies, deletions []Step
	for _, kv := range m.old {
		key, isConfig := string(kv.Key), false
		target := m.to + strings.TrimPrefix(key, m.from)
		if key == rollcall.ConfigPrefix+m.from {
			target, isConfig = rollcall.ConfigPrefix+m.to, true
		}
		s := Step{Unchanged: map[string]int64{key: kv.ModRevision, target: 0}}
		switch there := m.there[target]; {
		case there == nil:
			s.Writes = []clientv3.Op{clientv3.OpPut(target, string(kv.Value), clientv3.WithLease(clientv3.LeaseID(kv.Lease)))}
		case string(there.Value) != string(kv.Value) || there.Lease != kv.Lease:
			return nil, &ExistsError{target}
		default: // an earlier Move has come that far
			s.Unchanged[target] = there.ModRevision
		}
		delete(m.there, target)
		copies = append(copies, s)
		if isConfig {
			m.Config = true
		} else {
			m.Keys = append(m.Keys, target)
		}
		if kv.Lease != 0 {
			m.Left = append(m.Left, key)
			continue
		}
		deletions = append(deletions, Step{Unchanged: map[string]int64{key: kv.ModRevision}, Writes: []clientv3.Op{clientv3.OpDelete(key)}})
	}
	for key := range m.there {
		return nil, &ExistsError{key}
	}
	return append(copies, deletions...), nil
}
