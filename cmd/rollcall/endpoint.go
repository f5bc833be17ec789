// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
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

// entry is what is to be written.
type entry struct {
	service string
	ep      rollcall.Endpoint
	value   []byte
}

func (e entry) key() string { return rollcall.Key(e.service, e.ep.ID) }

// parse checks what was typed, before anything is asked of etcd.
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
			return e, fail(exitUsage, "--metadata is no JSON: %v; quote it, such as --metadata '{\"weight\":10}'", err)
		}
		e.ep.Metadata = metadata
	}
	if e.value, err = rollcall.Encode(addr, e.ep.Metadata); err != nil {
		return e, err
	}
	return e, nil
}

// warn tells of metadata fields that Rollcall would read and cannot.
func (a *app) warn(e entry) {
	inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte(e.key()), Value: e.value})
	if err != nil {
		return
	}
	for _, field := range inst.Attributes().Invalid {
		a.say("%v; its default applies", field)
	}
}

// checkTTL refuses a lease that is shorter than any.
func checkTTL(ttl time.Duration) error {
	if ttl < time.Second {
		return fail(exitUsage, "--ttl %v: a lease lives at least 1s", ttl)
	}
	return nil
}

// wholeSeconds rounds up, as a lease is counted.
func wholeSeconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }

// written is one endpoint that was written, as JSON.
type written struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	instance
}

func newWritten(inst instance) written {
	return written{APIVersion: apiVersion, Kind: "Instance", instance: inst}
}

// writtenTable is the same as a table.
func writtenTable(i instance) string {
	return table([]string{"KEY", "LEASE", "TTL", "MOD"},
		[]string{i.Key, i.Lease, ttlText(i.TTL), strconv.FormatInt(i.ModRevision, 10)})
}

// revoke gives a lease back that nothing stands under. It is a courtesy: nobody keeps
// the lease alive.
func (a *app) revoke(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	if lease == clientv3.NoLease {
		return
	}
	ctx, cancel := a.deadline(context.WithoutCancel(ctx))
	defer cancel()
	if _, err := client.Revoke(ctx, lease); err != nil {
		a.say("revoke lease %x: %s; it ends by itself", int64(lease), plain(err))
	}
}
