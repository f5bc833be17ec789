// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// Stored is what etcd holds of a service, byte for byte.
type Stored struct {
	Keys   []*mvccpb.KeyValue // sorted
	Config *mvccpb.KeyValue   // the service config; nil: none
}

// Endpoints counts the values that are endpoints.
func (s *Stored) Endpoints() (n int) {
	for _, kv := range s.Keys {
		if _, err := rollcall.Decode(kv); err == nil {
			n++
		}
	}
	return n
}

// Sort puts the keys in order.
func (s *Stored) Sort() {
	slices.SortFunc(s.Keys, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
}

// all returns the keys and that of the service config.
func (s *Stored) all() []*mvccpb.KeyValue {
	if s.Config == nil {
		return s.Keys
	}
	return append(slices.Clip(s.Keys), s.Config)
}

// names returns the keys as text.
func (s *Stored) names() (keys []string) {
	for _, kv := range s.Keys {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// Read reads services, all where none is named, at one revision. A key is of the service with the longest name
// that it is under.
func Read(ctx context.Context, client *clientv3.Client, services []string) (all map[string]*Stored, revision int64, err error) {
	if len(services) == 0 {
		resp, err := client.Get(ctx, "\x00", clientv3.WithFromKey())
		if err != nil {
			return nil, 0, fmt.Errorf("read all keys: %w", err)
		}
		return Group(resp.Kvs), resp.Header.Revision, nil
	}
	all = make(map[string]*Stored)
	for _, service := range services {
		keys, configs, err := readAt(ctx, client, &revision, service+"/", clientv3.OpGet(rollcall.ConfigPrefix+service, clientv3.WithRev(revision)))
		if err != nil {
			return nil, 0, fmt.Errorf("read service %q: %w", service, err)
		}
		all[service] = &Stored{Keys: keys}
		for _, kv := range configs {
			all[service].Config = kv
		}
	}
	for service, stored := range all {
		stored.Keys = slices.DeleteFunc(stored.Keys, func(kv *mvccpb.KeyValue) bool { return longest(string(kv.Key), all) != service })
	}
	return all, revision, nil
}

// ReadUnder reads all services under prefixes that end in "/", at one revision.
func ReadUnder(ctx context.Context, client *clientv3.Client, prefixes []string) (all map[string]*Stored, revision int64, err error) {
	stored := make(map[string]*mvccpb.KeyValue) // prefixes may overlap
	for _, prefix := range prefixes {
		keys, configs, err := readAt(ctx, client, &revision, prefix, clientv3.OpGet(rollcall.ConfigPrefix+prefix, clientv3.WithPrefix(), clientv3.WithRev(revision)))
		if err != nil {
			return nil, 0, fmt.Errorf("read services under %q: %w", prefix, err)
		}
		for _, kv := range slices.Concat(keys, configs) {
			stored[string(kv.Key)] = kv
		}
	}
	kvs := slices.Collect(maps.Values(stored))
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return Group(kvs), revision, nil
}

// readAt reads the keys under a prefix, and service configs, at a revision, which it sets where that is 0: the newest.
func readAt(ctx context.Context, client *clientv3.Client, revision *int64, prefix string, configs clientv3.Op) (keys, read []*mvccpb.KeyValue, err error) {
	resp, err := client.Txn(ctx).Then(clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithRev(*revision)), configs).Commit()
	if err != nil {
		return nil, nil, err
	}
	if *revision == 0 {
		*revision = resp.Header.Revision
	}
	return resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs, nil
}

// longest returns the longest name of a service that a key is under.
func longest(key string, services map[string]*Stored) string {
	for {
		key, _ = rollcall.SplitKey(key)
		if services[key] != nil || key == "" {
			return key
		}
	}
}

// Group splits keys at their last "/", but a service's name does not end with one.
func Group(kvs []*mvccpb.KeyValue) map[string]*Stored {
	all := make(map[string]*Stored)
	for _, kv := range kvs {
		service, isConfig := strings.CutPrefix(string(kv.Key), rollcall.ConfigPrefix)
		if !isConfig {
			service, _ = rollcall.SplitKey(string(kv.Key))
			service = strings.TrimRight(service, "/")
		}
		if service == "" {
			continue
		}
		if all[service] == nil {
			all[service] = new(Stored)
		}
		if isConfig {
			all[service].Config = kv
		} else {
			all[service].Keys = append(all[service].Keys, kv)
		}
	}
	return all
}
