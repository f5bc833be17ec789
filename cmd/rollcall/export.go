// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

func newExport(a *app) *cobra.Command {
	var prefix bool
	cmd := &cobra.Command{
		Use:   "export [SERVICE...]",
		Short: "Write services to a file that import reads",
		Long: "export writes services, all or those that are named, as YAML or with -o json as JSON: the id,\n" +
			"address and metadata of each endpoint, and the service config. rollcall import writes them again,\n" +
			"byte for byte: a value that Rollcall would write in another way, or cannot read, is exported as the\n" +
			"text that it is. \"leased\" marks what a server keeps registered. Revisions are left out, so that what\n" +
			"has not changed reads the same.\n\n" +
			"SERVICE is a full name. With --prefix it is a prefix that ends in \"/\", for all services under it.\n" +
			"Then, and without a SERVICE, keys are split at their last \"/\", and keys under which there is neither\n" +
			"an endpoint nor a service config are left out: they are not Rollcall's.",
		Example:     "  rollcall export > services.yaml\n  rollcall export my-service -o json\n  rollcall export --prefix team-a/",
		Annotations: outputs("table", "json", "yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names := make([]string, 0, len(args))
			for _, arg := range args {
				service, err := rollcall.ParseService(arg)
				switch {
				case err != nil:
					return err
				case !prefix:
					names = append(names, service)
				case !strings.HasSuffix(arg, "/"):
					return errNoSlash(arg)
				default:
					names = append(names, service+"/")
				}
			}
			read := edit.Read
			if prefix {
				if read = edit.ReadUnder; len(names) == 0 {
					return fail(exitUsage, "--prefix needs a prefix; usage: rollcall export --prefix PREFIX/...")
				}
			}
			return a.talkLong(cmd.Context(), func(ctx context.Context, client *clientv3.Client) error {
				all, _, err := read(ctx, client, names)
				if err != nil {
					return err
				}
				if len(names) > 0 && len(all) == 0 {
					return fail(exitNotFound, "no service under %s; see rollcall ls", strings.Join(names, ", "))
				}
				named := len(names) > 0 && !prefix
				switch {
				case named:
					a.sayOtherConfigs(ctx, client, all)
				case prefix:
					a.sayOfPrefixes(names, all)
				}
				return a.export(ctx, client, all, named)
			})
		},
	}
	cmd.Flags().BoolVar(&prefix, "prefix", false, `the names are prefixes of services, such as "team-a/"`)
	return cmd
}

// sayOtherConfigs tells of service configs that are not in an export of some services, whose endpoints are: those of
// services within them.
func (a *app) sayOtherConfigs(ctx context.Context, client *clientv3.Client, exported map[string]*edit.Stored) {
	for _, service := range slices.Sorted(maps.Keys(exported)) {
		resp, err := client.Get(ctx, rollcall.ConfigPrefix+service+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil { // no right to them, perhaps
			continue
		}
		var others []string
		for _, kv := range resp.Kvs {
			if other := strings.TrimPrefix(string(kv.Key), rollcall.ConfigPrefix); exported[other] == nil {
				others = append(others, strconv.Quote(other))
			}
		}
		if len(others) > 0 {
			a.say("left out: the service config of %s; to export all under %q: %s", shorten(strings.Join(others, ", "), 200), service+"/",
				shellLineWith("rollcall export --prefix", service+"/"))
		}
	}
}

// sayOfPrefixes tells of services that have the name of a prefix: their configs are not under it.
func (a *app) sayOfPrefixes(prefixes []string, exported map[string]*edit.Stored) {
	for _, prefix := range prefixes {
		if service := strings.TrimSuffix(prefix, "/"); exported[service] != nil && exported[service].Config == nil {
			a.say("left out: the service config of %q, if it has one, which is not under %q: %s", service, prefix, shellLineWith("rollcall export", service))
		}
	}
}

// export prints services. Those that were named must be there.
func (a *app) export(ctx context.Context, client *clientv3.Client, all map[string]*edit.Stored, named bool) error {
	m := manifest{APIVersion: apiVersion, Kind: manifestKind, Services: []manifestService{}}
	left := 0
	for _, service := range slices.Sorted(maps.Keys(all)) {
		stored := all[service]
		switch name, err := rollcall.ParseService(service); {
		case err != nil || name != service || rollcall.CheckKey(service+"/") != nil:
			a.say("%q was left out: no service can have that name", rollcall.ConfigPrefix+service)
		case !named && stored.Config == nil && stored.Endpoints() == 0:
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
