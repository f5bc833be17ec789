// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// vectors reads a file of the test vectors, whose fields a case must know.
func vectors[T any](t *testing.T, name string) (cases []T) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors/" + name)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&cases); err != nil || len(cases) == 0 {
		t.Fatalf("%s: %d cases, %v", name, len(cases), err)
	}
	return cases
}

func TestVectorsValues(t *testing.T) {
	for _, c := range vectors[struct {
		Name, Value string
		Padding     int
		Addr        string
		Metadata    any
		Invalid     bool
	}](t, "values.json") {
		value := c.Value
		if c.Padding > 0 {
			value = strings.Replace(value, "@", strings.Repeat("x", c.Padding), 1)
		}
		inst, err := Decode(&mvccpb.KeyValue{Key: []byte("svc/a"), Value: []byte(value)})
		switch {
		case c.Invalid:
			if err == nil {
				t.Errorf("%s: valid: %v", c.Name, inst)
			}
		case err != nil || inst.Addr != c.Addr:
			t.Errorf("%s: %v, %v", c.Name, inst, err)
		case c.Padding == 0:
			if diff := cmp.Diff(c.Metadata, anything(t, inst.Metadata)); diff != "" {
				t.Errorf("%s: %s", c.Name, diff)
			}
		}
	}
}

// anything returns a JSON value; absent is null.
func anything(t *testing.T, data json.RawMessage) (v any) {
	if data == nil {
		return nil
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectorsEncoded(t *testing.T) {
	for _, c := range vectors[struct {
		Addr     string
		Metadata any
		Value    string
		Invalid  bool
	}](t, "encoded.json") {
		if value, err := Encode(c.Addr, c.Metadata); (err != nil) != c.Invalid || string(value) != c.Value {
			t.Errorf("%+v: %s, %v", c, value, err)
		}
	}
}

func TestVectorsKeys(t *testing.T) {
	for _, c := range vectors[struct {
		Key, Service, ID string
		Target, Config   *string
		Outside          bool
	}](t, "keys.json") {
		if (c.Config != nil) != (CheckKey(c.Key) != nil) {
			t.Errorf("%q: a service config? %v", c.Key, CheckKey(c.Key))
		}
		if c.Config != nil {
			if config := decodeServiceConfig(&mvccpb.KeyValue{Key: []byte(c.Key)}); config.Service != *c.Config {
				t.Errorf("%q is the service config of %q", c.Key, config.Service)
			}
			continue
		}
		prefix := ""
		if c.Target != nil {
			prefix = *c.Target + "/"
		}
		if outside := !strings.HasPrefix(c.Key, prefix); outside || c.Outside {
			if outside != c.Outside {
				t.Errorf("%q is resolved by %q: %t", c.Key, *c.Target, !outside)
			}
			continue
		}
		inst, err := decode(&mvccpb.KeyValue{Key: []byte(c.Key), Value: []byte(`{"Addr":"a:1"}`)}, prefix)
		if err != nil || inst.Service() != c.Service || inst.ID() != c.ID {
			t.Errorf("%q: service %q, id %q, %v", c.Key, inst.Service(), inst.ID(), err)
		}
	}
}

func TestVectorsMetadata(t *testing.T) {
	type attributes struct {
		Weight      uint32 `json:"weight"`
		Region      string `json:"region"`
		Zone        string `json:"zone"`
		Subzone     string `json:"subzone"`
		Version     string `json:"version"`
		HashKey     string `json:"hash_key"`
		Status      string `json:"status"`
		Started     string `json:"started"`
		Host        string `json:"host"`
		MetricsPort uint16 `json:"metrics_port"`
	}
	for _, c := range vectors[struct {
		Metadata string
		Fields   json.RawMessage
		Invalid  []string
	}](t, "metadata.json") {
		want := attributes{Weight: 1, Status: StatusServing}
		if err := json.Unmarshal(c.Fields, &want); err != nil {
			t.Fatal(err)
		}
		is := (&Instance{Metadata: json.RawMessage(c.Metadata)}).Attributes()
		got := attributes{is.Weight, is.Locality.Region, is.Locality.Zone, is.Locality.Subzone, is.Version, is.HashKey, is.Status(), "", is.Host, is.MetricsPort}
		if !is.Started.IsZero() {
			got.Started = is.Started.Format(time.RFC3339)
		}
		var invalid []string
		for _, field := range is.Invalid {
			invalid = append(invalid, field.Field)
		}
		if diff := cmp.Diff(want, got) + cmp.Diff(c.Invalid, invalid); diff != "" {
			t.Errorf("%s: %s", c.Metadata, diff)
		}
	}
}

func TestVectorsAddresses(t *testing.T) {
	for _, c := range vectors[struct {
		Addr    string
		Allowed bool
	}](t, "addresses.json") {
		if err := HostPort(c.Addr); (err == nil) != c.Allowed {
			t.Errorf("%q: %v", c.Addr, err)
		}
	}
}

// TestVectorsInPython: another reading of the specification comes to the same. A case that is
// changed is found.
func TestVectorsInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/vectors")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(python, dir+"/check.py").CombinedOutput(); err != nil || strings.Count(string(out), "cases hold") != 5 {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(dir+"/addresses.json", []byte(`[{"addr": "10.0.0.7", "allowed": true}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(python, dir+"/check.py").CombinedOutput(); err == nil {
		t.Errorf("a wrong case holds: %s", out)
	}
}
