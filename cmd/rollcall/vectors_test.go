// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestVectorsOutputs: the JSON of commands is as testdata/vectors has it.
func TestVectorsOutputs(t *testing.T) {
	const path = "../../testdata/vectors/outputs.json"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Keys     []struct{ Key, Value string }
		Commands []struct {
			Args     []string
			Document any
		}
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		server := freshEtcd(t)
		client := etcdClient(t, server.Endpoint())
		for _, kv := range c.Keys {
			put1(t, client, kv.Key, kv.Value)
		}
		for _, command := range c.Commands {
			printed := must(t, server.Endpoint(), append(command.Args, "-o", "json")...).stdout
			var got any
			if err := json.Unmarshal([]byte(printed), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(command.Document, got); diff != "" {
				t.Errorf("%v: %s\n%s", command.Args, diff, printed)
			}
		}
	}
}
