// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// endpointFlags are the flags that add and register share.
type endpointFlags struct {
	id       string
	metadata string
	ttl      time.Duration
}

func (f *endpointFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.id, "id", "", "last part of the key (default: the address)")
	flags.StringVar(&f.metadata, "metadata", "", `JSON, such as '{"weight":10,"zone":"eu-1"}'`)
}

// entry is an endpoint to be written.
type entry struct {
	service string
	ep      rollcall.Endpoint
	value   []byte
}

func (e entry) key() string { return rollcall.Key(e.service, e.ep.ID) }

// parse checks the arguments and flags, without asking etcd.
func (f *endpointFlags) parse(service, addr string) (e entry, err error) {
	if e.service, err = rollcall.ParseService(service); err != nil {
		return e, err
	}
	if err := rollcall.HostPort(addr); err != nil {
		return e, err
	}
	e.ep = rollcall.Endpoint{ID: f.id, Addr: addr}
	if f.id == "" {
		e.ep.ID = addr
	}
	if err := rollcall.CheckKey(e.key()); err != nil {
		return e, err
	}
	if f.metadata != "" {
		var metadata json.RawMessage
		if err := json.Unmarshal([]byte(f.metadata), &metadata); err != nil {
			return e, fail(exitUsage, "--metadata is not JSON: %v; quote it, such as --metadata '{\"weight\":10}'", err)
		}
		e.ep.Metadata = metadata
	}
	if e.value, err = rollcall.Encode(addr, e.ep.Metadata); err != nil {
		return e, err
	}
	return e, nil
}

// warn reports metadata fields whose values Rollcall cannot read, and a key that ls shows elsewhere.
func (a *app) warn(e entry) {
	if service, id := rollcall.SplitKey(e.key()); service != e.service {
		a.say("the id %q has a \"/\": clients of service %q find it, but rollcall ls shows it as %q of service %q", e.ep.ID, e.service, id, service)
	}
	inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte(e.key()), Value: e.value})
	if err != nil {
		return
	}
	for _, field := range inst.Attributes().Invalid {
		a.say("%v; its default applies", field)
	}
}

// checkTTL rejects a TTL below 1s, the shortest that etcd grants.
func checkTTL(ttl time.Duration) error {
	if ttl < time.Second {
		return fail(exitUsage, "--ttl %v: a lease has at least 1s", ttl)
	}
	return nil
}

// wholeSeconds rounds up to seconds, the unit of a lease.
func wholeSeconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }

// written is an endpoint that was written, as JSON.
type written struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	inventory.Instance
}

func newWritten(inst inventory.Instance) written {
	return written{APIVersion: apiVersion, Kind: "Instance", Instance: inst}
}

// writtenTable is an endpoint that was written, as a table.
func writtenTable(i inventory.Instance) string {
	ttl := ""
	if i.TTL > 0 {
		ttl = fmt.Sprintf("%ds", i.TTL)
	}
	return table([]string{"KEY", "LEASE", "TTL", "MOD"},
		[]string{i.Key, i.Lease, ttl, strconv.FormatInt(i.ModRevision, 10)})
}

// grantLease grants a lease that nobody renews.
func (a *app) grantLease(ctx context.Context, client *clientv3.Client, ttl time.Duration) (*clientv3.LeaseGrantResponse, error) {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	resp, err := client.Grant(ctx, wholeSeconds(ttl))
	if err != nil {
		return nil, fmt.Errorf("grant a lease of %v: %w", ttl, err)
	}
	return resp, nil
}

// revoke revokes a lease that no key is under. If that fails, the lease expires.
func (a *app) revoke(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	if lease == clientv3.NoLease {
		return
	}
	ctx, cancel := a.deadline(context.WithoutCancel(ctx))
	defer cancel()
	if _, err := client.Revoke(ctx, lease); err != nil {
		a.say("revoke lease %x: %s; it expires by itself", int64(lease), plain(err))
	}
}
