// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// maxChanged bounds the keys changed in one transaction: etcd allows 128 operations.
const maxChanged = 128

// storedKey is a key of a service as it is in etcd.
type storedKey struct {
	key            string
	lease          clientv3.LeaseID
	createRevision int64
	modRevision    int64
	value          []byte             // as stored
	instance       *rollcall.Instance // nil if the value is invalid: see cause
	cause          error
}

// change is a transaction on some keys of a service.
type change struct {
	before   *rollcall.Snapshot
	keys     []storedKey // sorted by key; writes has one for each
	writes   []clientv3.Op
	revision int64
}

// checkFunc returns why the keys of a service must not be written to.
type checkFunc func(snap *rollcall.Snapshot, keys []storedKey) error

// change writes to all keys that the names select, or to none. A name is an id or, if there
// is no such id, an address. If a key was changed meanwhile, change starts over. A nil check
// refuses nothing.
func (a *app) change(ctx context.Context, client *clientv3.Client, service string, names []string, check checkFunc,
	write func(storedKey) (clientv3.Op, error)) (change, error) {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return change{}, err
	}
	for {
		c := change{}
		if c.before, err = dir.List(ctx, service); err != nil {
			return c, fmt.Errorf("list service %q: %w", service, err)
		}
		if c.keys, err = find(c.before, names); err != nil {
			return c, err
		}
		if check != nil {
			if err := check(c.before, c.keys); err != nil {
				return c, err
			}
		}
		if same, err := readValues(ctx, client, c.keys); err != nil {
			return c, fmt.Errorf("read %d keys of service %q: %w", len(c.keys), service, err)
		} else if !same {
			continue
		}
		var same []clientv3.Cmp
		for _, k := range c.keys {
			op, err := write(k)
			if err != nil {
				return c, err
			}
			c.writes = append(c.writes, op)
			same = append(same, clientv3.Compare(clientv3.ModRevision(k.key), "=", k.modRevision))
		}
		resp, err := client.Txn(ctx).If(same...).Then(c.writes...).Commit()
		if err != nil {
			return c, fmt.Errorf("write to %d keys of service %q: %w", len(c.keys), service, err)
		}
		if resp.Succeeded {
			c.revision = resp.Header.Revision
			return c, nil
		}
	}
}

// readValues reads the stored values. It reports whether no key was changed since it was listed.
func readValues(ctx context.Context, client *clientv3.Client, keys []storedKey) (same bool, err error) {
	var gets []clientv3.Op
	for _, k := range keys {
		gets = append(gets, clientv3.OpGet(k.key))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return false, err
	}
	for i := range keys {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].ModRevision != keys[i].modRevision {
			return false, nil
		}
		keys[i].value = kvs[0].Value
	}
	return true, nil
}

// find returns the keys that the names select, each once.
func find(snap *rollcall.Snapshot, names []string) (all []storedKey, err error) {
	for _, name := range names {
		keys := named(snap, name)
		if len(keys) == 0 {
			return nil, fail(exitNotFound, "service %q has neither an id nor an address %q at revision %d; see rollcall get %s",
				snap.Service(), name, snap.Revision(), snap.Service())
		}
		all = append(all, keys...)
	}
	slices.SortFunc(all, func(a, b storedKey) int { return strings.Compare(a.key, b.key) })
	all = slices.CompactFunc(all, func(a, b storedKey) bool { return a.key == b.key })
	if len(all) > maxChanged {
		return nil, fail(exitOther, "%d keys of service %q are more than the %d that one transaction can change; name fewer, by id",
			len(all), snap.Service(), maxChanged)
	}
	return all, nil
}

// named returns the key with that id or, if there is none, the keys with that address.
func named(snap *rollcall.Snapshot, name string) (keys []storedKey) {
	key := rollcall.Key(snap.Service(), name)
	for _, r := range snap.Invalid() {
		if r.Key == key {
			return []storedKey{{r.Key, r.Lease, r.CreateRevision, r.ModRevision, nil, nil, r.Cause}}
		}
	}
	if i := snap.Instance(key); i != nil {
		return []storedKey{storedKeyOf(i)}
	}
	for i := range snap.All() {
		if i.Addr == name {
			keys = append(keys, storedKeyOf(i))
		}
	}
	return keys
}

func storedKeyOf(i *rollcall.Instance) storedKey {
	return storedKey{i.Key, i.Lease, i.CreateRevision, i.ModRevision, nil, i, nil}
}

// checkNames checks the names of a service and of its endpoints.
func checkNames(service string, names []string) (string, error) {
	service, err := rollcall.ParseService(service)
	if err == nil && slices.Contains(names, "") {
		err = fail(exitUsage, "the id is empty; see rollcall get %s", service)
	}
	return service, err
}
