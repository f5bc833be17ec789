// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// TestExportIsImported: whatever keys a service has, and whatever their values, a file has them byte for byte.
func TestExportIsImported(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "a/b", "/", "yes", "\xff"}), rapid.String())
		value := rapid.OneOf(rapid.SampledFrom([]string{"", "\xfe", `{"Addr":"10.0.0.1:80"}`, `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"a":1}}`,
			`{"loadBalancingConfig":[{"round_robin":{}}]}`}), rapid.String())
		want := make(map[string]string)
		for range rapid.IntRange(1, 5).Draw(t, "keys") {
			want[part.Draw(t, "service")+"/"+part.Draw(t, "id")] = value.Draw(t, "value")
		}
		name := rapid.SampledFrom([]string{"a", "a/b", "c"}).Draw(t, "configured")
		want[rollcall.ConfigPrefix+name] = value.Draw(t, "config")
		var kvs []*mvccpb.KeyValue
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if !strings.HasPrefix(key, rollcall.ConfigPrefix) && strings.Trim(key[:strings.LastIndexByte(key, '/')], "/") == "" {
				delete(want, key) // of no service
			}
			kvs = append(kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(want[key])})
		}
		m := manifest{APIVersion: apiVersion, Kind: manifestKind}
		all := edit.Group(kvs)
		for _, service := range slices.Sorted(maps.Keys(all)) {
			m.Services = append(m.Services, storedManifest(service, all[service]))
		}
		asYAML, err := yamlText(m)
		if err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{asYAML, string(asJSON)} {
			read, err := readManifest("file", []byte(text))
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			empty := make(map[string]*edit.Stored)
			for service := range all {
				empty[service] = new(edit.Stored)
			}
			plans, err := planImport(read, empty, importRules{})
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]string)
			for _, p := range plans {
				for _, c := range p.changes {
					got[c.key] = string(c.value)
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("got %q, want %q, from\n%s", got, want, text)
			}
		}
	})
}
