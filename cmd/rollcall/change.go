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

// mostChanged is how many keys change in one transaction: etcd takes 128 operations.
const mostChanged = 128

// storedKey is a key of a service as etcd holds it.
type storedKey struct {
	key            string
	lease          clientv3.LeaseID
	createRevision int64
	modRevision    int64
	value          []byte             // as stored
	instance       *rollcall.Instance // nil for a value that is no endpoint, with the cause
	cause          error
}

// change is what was done to some keys of a service, in one transaction.
type change struct {
	before   *rollcall.Snapshot
	held     []storedKey // sorted by key; writes has one for each
	writes   []clientv3.Op
	revision int64
}

// change writes to all the keys that names stand for, each an id or else an address, or
// to none. It looks again where somebody else wrote to one of them in between.
func (a *app) change(ctx context.Context, client *clientv3.Client, service string, names []string,
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
		if c.held, err = find(c.before, names); err != nil {
			return c, err
		}
		if same, err := readValues(ctx, client, c.held); err != nil {
			return c, fmt.Errorf("read %d keys of service %q: %w", len(c.held), service, err)
		} else if !same {
			continue
		}
		var same []clientv3.Cmp
		for _, h := range c.held {
			op, err := write(h)
			if err != nil {
				return c, err
			}
			c.writes = append(c.writes, op)
			same = append(same, clientv3.Compare(clientv3.ModRevision(h.key), "=", h.modRevision))
		}
		resp, err := client.Txn(ctx).If(same...).Then(c.writes...).Commit()
		if err != nil {
			return c, fmt.Errorf("write to %d keys of service %q: %w", len(c.held), service, err)
		}
		if resp.Succeeded {
			c.revision = resp.Header.Revision
			return c, nil
		}
	}
}

// readValues reads what is stored, and says whether it is still what was listed.
func readValues(ctx context.Context, client *clientv3.Client, held []storedKey) (same bool, err error) {
	var gets []clientv3.Op
	for _, h := range held {
		gets = append(gets, clientv3.OpGet(h.key))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return false, err
	}
	for i := range held {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].ModRevision != held[i].modRevision {
			return false, nil
		}
		held[i].value = kvs[0].Value
	}
	return true, nil
}

// find returns the keys that names stand for, none twice.
func find(snap *rollcall.Snapshot, names []string) (all []storedKey, err error) {
	for _, name := range names {
		held := named(snap, name)
		if len(held) == 0 {
			return nil, fail(exitNotFound, "service %q has neither an id nor an address %q at revision %d; see rollcall get %s",
				snap.Service(), name, snap.Revision(), snap.Service())
		}
		all = append(all, held...)
	}
	slices.SortFunc(all, func(a, b storedKey) int { return strings.Compare(a.key, b.key) })
	all = slices.CompactFunc(all, func(a, b storedKey) bool { return a.key == b.key })
	if len(all) > mostChanged {
		return nil, fail(exitOther, "those are %d keys of service %q, more than the %d that change at once; name fewer, by id",
			len(all), snap.Service(), mostChanged)
	}
	return all, nil
}

// named returns the key of that id, or else those of the endpoints with that address.
func named(snap *rollcall.Snapshot, name string) (held []storedKey) {
	key := rollcall.Key(snap.Service(), name)
	for _, r := range snap.Invalid() {
		if r.Key == key {
			return []storedKey{{r.Key, r.Lease, r.CreateRevision, r.ModRevision, nil, nil, r.Cause}}
		}
	}
	if i := snap.Instance(key); i != nil {
		return []storedKey{storedKeyOf(i)}
	}
	for _, i := range snap.Instances() {
		if i.Addr == name {
			held = append(held, storedKeyOf(i))
		}
	}
	return held
}

func storedKeyOf(i *rollcall.Instance) storedKey {
	return storedKey{i.Key, i.Lease, i.CreateRevision, i.ModRevision, nil, i, nil}
}

// checkNames reads what a command calls a service and its endpoints.
func checkNames(service string, names []string) (string, error) {
	service, err := rollcall.ParseService(service)
	if err == nil && slices.Contains(names, "") {
		err = fail(exitUsage, "the id is empty; see rollcall get %s", service)
	}
	return service, err
}
