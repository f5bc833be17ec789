// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/plural"
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
	all, _, err := edit.Read(ctx, client, services)
	if err != nil {
		return err
	}
	left := 0
	for _, service := range slices.Sorted(maps.Keys(all)) {
		stored := all[service]
		switch name, err := rollcall.ParseService(service); {
		case err != nil || name != service || rollcall.CheckKey(service+"/") != nil:
			a.say("%q was left out: no service can have that name", rollcall.ConfigPrefix+service)
		case len(services) == 0 && stored.Config == nil && stored.Endpoints() == 0:
			left += len(stored.Keys)
		case len(stored.Keys) == 0 && stored.Config == nil:
			return fail(exitNotFound, "service %q not found: no key under %q%s; see rollcall ls", service, service+"/",
				likeServices(ctx, client, service))
		default:
			m.Services = append(m.Services, storedManifest(service, stored))
		}
	}
	if left > 0 {
		a.say("%s left out: no endpoint and no service config is among their neighbours", plural.Count(left, "key was", "keys were"))
	}
	if a.json() {
		return a.printJSON(m)
	}
	return a.printYAML(m)
}

// storedManifest is what etcd holds of a service, as a file has it.
func storedManifest(service string, s *edit.Stored) manifestService {
	m := manifestService{Instances: []manifestInstance{}}
	m.Service, m.ServiceBase64 = textOrBytes(service)
	if s.Config != nil {
		m.setConfig(string(s.Config.Value))
	}
	for _, kv := range s.Keys {
		m.Instances = append(m.Instances, newManifestInstance(service, kv))
	}
	return m
}
