// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package edit changes keys of a service by hand, all that are named or none: what commands and
// pages do when somebody drains an endpoint, sets its weight or removes it.
package edit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/plural"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// MaxKeys bounds the keys changed in one transaction: etcd allows 128 comparisons, and a Check may
// add one.
const MaxKeys = 127

// NotFoundError is returned for a name that a service has no key of.
type NotFoundError struct {
	Service, Name string
	Revision      int64
	NoService     bool     // the service has no key at all
	IDs           []string // that the service has
}

func (e *NotFoundError) Error() string {
	if e.NoService {
		return fmt.Sprintf("service %q not found: no key under %q at revision %d", e.Service, e.Service+"/", e.Revision)
	}
	return fmt.Sprintf("service %q has neither an id nor an address %q at revision %d", e.Service, e.Name, e.Revision)
}

// Key is a key of a service as it is in etcd.
type Key struct {
	Key            string
	Lease          clientv3.LeaseID
	CreateRevision int64
	ModRevision    int64
	Value          []byte             // as stored
	Instance       *rollcall.Instance // nil if the value is invalid: see Cause
	Cause          error
}

// Change is a transaction on some keys of a service.
type Change struct {
	Before   *rollcall.Snapshot
	Keys     []Key         // sorted by key
	Writes   []clientv3.Op // one for each key
	Revision int64
}

// Check returns why keys of a service must not be written to; nil: they may, as long as an instance
// that the Check relies on is not written to either. There is none where that is nil.
type Check func(snap *rollcall.Snapshot, keys []Key) (relied *rollcall.Instance, err error)

// Apply writes to all keys that the names select, or to none. A name is an id or, if there is no
// such id, an address. If a key was changed meanwhile, or one that the check relies on, Apply starts
// over. The nil check refuses nothing.
func Apply(ctx context.Context, dir *rollcall.Directory, service string, names []string, check Check, write func(Key) (clientv3.Op, error)) (Change, error) {
	client := dir.Client()
	for {
		c := Change{}
		var err error
		if c.Before, err = dir.List(ctx, service); err != nil {
			return c, fmt.Errorf("list service %q: %w", service, err)
		}
		if c.Keys, err = Find(c.Before, names); err != nil {
			return c, err
		}
		var conditions []clientv3.Cmp
		unchanged := func(key string, modRevision int64) {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", modRevision))
		}
		if check != nil {
			relied, err := check(c.Before, c.Keys)
			if err != nil {
				return c, err
			}
			if relied != nil {
				unchanged(relied.Key, relied.ModRevision)
			}
		}
		if same, err := readValues(ctx, client, c.Keys); err != nil {
			return c, fmt.Errorf("read %s of service %q: %w", plural.Count(len(c.Keys), "key", "keys"), service, err)
		} else if !same {
			continue
		}
		for _, k := range c.Keys {
			op, err := write(k)
			if err != nil {
				return c, err
			}
			c.Writes = append(c.Writes, op)
			unchanged(k.Key, k.ModRevision)
		}
		resp, err := client.Txn(ctx).If(conditions...).Then(c.Writes...).Commit()
		if err != nil {
			return c, fmt.Errorf("write to %s of service %q: %w", plural.Count(len(c.Keys), "key", "keys"), service, err)
		}
		if resp.Succeeded {
			c.Revision = resp.Header.Revision
			return c, nil
		}
	}
}

// readValues reads the stored values. It reports whether no key was changed since it was listed.
func readValues(ctx context.Context, client *clientv3.Client, keys []Key) (same bool, err error) {
	var gets []clientv3.Op
	for _, k := range keys {
		gets = append(gets, clientv3.OpGet(k.Key))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return false, err
	}
	for i := range keys {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].ModRevision != keys[i].ModRevision {
			return false, nil
		}
		keys[i].Value = kvs[0].Value
	}
	return true, nil
}

// Find returns the keys that the names select, each once: at most MaxKeys.
func Find(snap *rollcall.Snapshot, names []string) (all []Key, err error) {
	for _, name := range names {
		keys := named(snap, name)
		if len(keys) == 0 {
			missing := &NotFoundError{Service: snap.Service(), Name: name, Revision: snap.Revision(), NoService: snap.Len()+len(snap.Invalid()) == 0}
			for i := range snap.All() {
				missing.IDs = append(missing.IDs, i.ID())
			}
			return nil, missing
		}
		all = append(all, keys...)
	}
	slices.SortFunc(all, func(a, b Key) int { return strings.Compare(a.Key, b.Key) })
	all = slices.CompactFunc(all, func(a, b Key) bool { return a.Key == b.Key })
	if len(all) > MaxKeys {
		return nil, fmt.Errorf("%d keys of service %q are more than the %d that one transaction can change; give at most so many ids at a time",
			len(all), snap.Service(), MaxKeys)
	}
	return all, nil
}

// named returns the key with that id or, if there is none, the keys with that address or else with an id that is
// shown so, because it has characters that cannot be printed.
func named(snap *rollcall.Snapshot, name string) (keys []Key) {
	key := rollcall.Key(snap.Service(), name)
	for _, r := range snap.Invalid() {
		if r.Key == key {
			return []Key{invalidKey(r)}
		}
	}
	if i := snap.Instance(key); i != nil {
		return []Key{keyOf(i)}
	}
	for i := range snap.All() {
		if i.Addr == name {
			keys = append(keys, keyOf(i))
		}
	}
	if len(keys) > 0 || !strings.Contains(name, `\`) {
		return keys
	}
	for _, r := range snap.Invalid() {
		if printable.Escape(r.Key) == key {
			keys = append(keys, invalidKey(r))
		}
	}
	for i := range snap.All() {
		if printable.Escape(i.Key) == key {
			keys = append(keys, keyOf(i))
		}
	}
	return keys
}

func invalidKey(r *rollcall.Invalid) Key {
	return Key{r.Key, r.Lease, r.CreateRevision, r.ModRevision, nil, nil, r.Cause}
}

func keyOf(i *rollcall.Instance) Key {
	return Key{i.Key, i.Lease, i.CreateRevision, i.ModRevision, nil, i, nil}
}

// SetField returns a function for Apply that sets a field of the metadata, or removes it if the
// value is nil, and leaves the rest of the value and the lease as they are.
func SetField(field string, value any) func(Key) (clientv3.Op, error) {
	return func(k Key) (op clientv3.Op, err error) {
		if k.Instance == nil {
			return op, fmt.Errorf("%q cannot be edited: %v; replace it with rollcall add --force", k.Key, k.Cause)
		}
		metadata, err := rollcall.WithField(k.Instance.Metadata, field, value)
		var data []byte
		if err == nil {
			data, err = rollcall.Encode(k.Instance.Addr, metadata)
		}
		if err == nil {
			data, err = withOthers(data, k.Value)
		}
		if err != nil {
			return op, fmt.Errorf("%q cannot be edited: %v", k.Key, err)
		}
		return clientv3.OpPut(k.Key, string(data), clientv3.WithIgnoreLease()), nil
	}
}

// withOthers adds to an endpoint's value the fields of an older value that gRPC naming does
// not know: they may matter to whoever wrote them.
func withOthers(value, old []byte) ([]byte, error) {
	var fields, others map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(value, &fields), json.Unmarshal(old, &others)); err != nil {
		return nil, err
	}
	known := slices.Collect(maps.Keys(fields))
	maps.DeleteFunc(others, func(name string, _ json.RawMessage) bool {
		return slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) })
	})
	if len(others) == 0 {
		return value, nil
	}
	maps.Copy(fields, others)
	return json.Marshal(fields)
}
