// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

func newExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "export [SERVICE...]",
		Short: "Write services to a file that import reads",
		Long: "export writes services, all or those that are named, as YAML or with -o json as JSON: the id,\n" +
			"address and metadata of each endpoint, and the service config. rollcall import writes them again,\n" +
			"byte for byte: a value that Rollcall would write in another way, or cannot read, is exported as the\n" +
			"text that it is. \"leased\" marks what a server keeps registered. Revisions are left out, so that what\n" +
			"has not changed reads the same.\n\n" +
			"Without a SERVICE keys are split at their last \"/\", and keys under which there is neither an\n" +
			"endpoint nor a service config are left out: they are not Rollcall's.",
		Example:     "  rollcall export > services.yaml\n  rollcall export my-service -o json",
		Annotations: outputs("table", "json", "yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			services := make([]string, 0, len(args))
			for _, arg := range args {
				service, err := rollcall.ParseService(arg)
				if err != nil {
					return err
				}
				services = append(services, service)
			}
			return a.talkLong(cmd.Context(), func(ctx context.Context, client *clientv3.Client) error {
				return a.export(ctx, client, services)
			})
		},
	}
}

func (a *app) export(ctx context.Context, client *clientv3.Client, services []string) error {
	m := manifest{APIVersion: apiVersion, Kind: manifestKind, Services: []manifestService{}}
	all, err := readStored(ctx, client, services)
	if err != nil {
		return err
	}
	left := 0
	for _, service := range slices.Sorted(maps.Keys(all)) {
		stored := all[service]
		switch name, err := rollcall.ParseService(service); {
		case err != nil || name != service || rollcall.CheckKey(service+"/") != nil:
			a.say("%q was left out: no service can have that name", rollcall.ConfigPrefix+service)
		case len(services) == 0 && stored.config == nil && stored.endpoints() == 0:
			left += len(stored.keys)
		case len(stored.keys) == 0 && stored.config == nil:
			return fail(exitNotFound, "service %q not found: no key under %q%s; see rollcall ls", service, service+"/",
				likeServices(ctx, client, service))
		default:
			m.Services = append(m.Services, stored.manifest(service))
		}
	}
	if left > 0 {
		a.say("%d keys were left out: no endpoint and no service config is among their neighbours", left)
	}
	if a.json() {
		return a.printJSON(m)
	}
	return a.printYAML(m)
}

// storedService is what etcd holds of a service.
type storedService struct {
	keys   []*mvccpb.KeyValue // sorted
	config *mvccpb.KeyValue   // nil: none
}

// endpoints counts the values that are endpoints.
func (s *storedService) endpoints() (n int) {
	for _, kv := range s.keys {
		if _, err := rollcall.Decode(kv); err == nil {
			n++
		}
	}
	return n
}

func (s *storedService) sort() {
	slices.SortFunc(s.keys, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
}

func (s *storedService) manifest(service string) manifestService {
	m := manifestService{Instances: []manifestInstance{}}
	m.Service, m.ServiceBase64 = textOrBytes(service)
	if s.config != nil {
		m.setConfig(string(s.config.Value))
	}
	for _, kv := range s.keys {
		m.Instances = append(m.Instances, newManifestInstance(service, kv))
	}
	return m
}

// longest returns the longest name of a service that a key is under.
func longest(key string, services map[string]*storedService) string {
	for {
		key, _ = rollcall.SplitKey(key)
		if services[key] != nil || key == "" {
			return key
		}
	}
}

// groupKeys splits keys at their last "/", but a service's name does not end with one.
func groupKeys(kvs []*mvccpb.KeyValue) map[string]*storedService {
	all := make(map[string]*storedService)
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
			all[service] = new(storedService)
		}
		if isConfig {
			all[service].config = kv
		} else {
			all[service].keys = append(all[service].keys, kv)
		}
	}
	return all
}

// readStored reads services, all where none is named, at one revision. A key is of the service with the longest name
// that it is under.
func readStored(ctx context.Context, client *clientv3.Client, services []string) (map[string]*storedService, error) {
	all := make(map[string]*storedService)
	of := func(service string) *storedService {
		if all[service] == nil {
			all[service] = new(storedService)
		}
		return all[service]
	}
	if len(services) == 0 {
		resp, err := client.Get(ctx, "\x00", clientv3.WithFromKey())
		if err != nil {
			return nil, fmt.Errorf("read all keys: %w", err)
		}
		return groupKeys(resp.Kvs), nil
	}
	revision := int64(0)
	for _, service := range services {
		resp, err := client.Txn(ctx).Then(clientv3.OpGet(service+"/", clientv3.WithPrefix(), clientv3.WithRev(revision)),
			clientv3.OpGet(rollcall.ConfigPrefix+service, clientv3.WithRev(revision))).Commit()
		if err != nil {
			return nil, fmt.Errorf("read service %q: %w", service, err)
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		of(service).keys = resp.Responses[0].GetResponseRange().Kvs
		for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
			of(service).config = kv
		}
	}
	for service, stored := range all {
		stored.keys = slices.DeleteFunc(stored.keys, func(kv *mvccpb.KeyValue) bool { return longest(string(kv.Key), all) != service })
	}
	return all, nil
}
