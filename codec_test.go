// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"encoding/json"
	"errors"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/rollcall-grpc/rollcall"
)

func TestEncode(t *testing.T) {
	for _, row := range []struct {
		name     string
		addr     string
		metadata any
		want     string // of an error, if it does not start with "{"
	}{
		{"no metadata", "1.2.3.4:80", nil, `{"Op":0,"Addr":"1.2.3.4:80","Metadata":null}`},
		{"address without a port", "1.2.3.4", "...", `{"Op":0,"Addr":"1.2.3.4","Metadata":"..."}`},
		{"object", "a:1", map[string]any{"zone": "<eu>", "weight": 3}, `{"Op":0,"Addr":"a:1","Metadata":{"weight":3,"zone":"\u003ceu\u003e"}}`},
		{"raw", "a:1", json.RawMessage(` { "b" : 1, "a" : 2 } `), `{"Op":0,"Addr":"a:1","Metadata":{"b":1,"a":2}}`},
		{"no address", "", nil, `invalid address "": value has no Addr`},
		{"no JSON", "a:1", json.RawMessage(`{`), `invalid metadata "{": it cannot be written as JSON`},
		{"channel", "a:1", make(chan int), `it cannot be written as JSON`},
		{"too large", "a:1", strings.Repeat("x", rollcall.MaxMetadata), `over the limit of 1048576`},
		{"too deep", "a:1", json.RawMessage(strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001)), `exceeded max depth`},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := rollcall.Encode(row.addr, row.metadata)
			if strings.HasPrefix(row.want, "{") {
				if err != nil || string(got) != row.want {
					t.Errorf("got %s, %v, want %s", got, err, row.want)
				}
				return
			}
			var input *rollcall.InputError
			if !errors.As(err, &input) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an *InputError with %q", err, row.want)
			}
		})
	}
}

func TestDecode(t *testing.T) {
	for _, row := range []struct {
		name, value, addr, metadata, err string
	}{
		{"as written", `{"Op":0,"Addr":"a:1","Metadata":{"weight":2}}`, "a:1", `{"weight":2}`, ""},
		{"by etcdctl", `{"Addr":"1.2.3.4","Metadata":"..."}`, "1.2.3.4", `"..."`, ""},
		{"any case", `{"op":0,"ADDR":"a:1","metadata":[1]}`, "a:1", `[1]`, ""},
		{"unknown fields", `{"Addr":"a:1","Extra":{"Addr":"b:2"}}`, "a:1", "", ""},
		{"null metadata", `{"Addr":"a:1","Metadata":null}`, "a:1", "", ""},
		{"the last of three counts", `{"Addr":"a:1","Metadata":1,"METADATA":null,"metadata":2}`, "a:1", "2", ""},
		{"white space", " {\n\t\"Addr\" : \"a:1\" } ", "a:1", "", ""},
		{"no JSON", `a:1`, "", "", "value is not an endpoint"},
		{"a list", `["a:1"]`, "", "", "value is not an endpoint"},
		{"number as address", `{"Addr":1}`, "", "", "value is not an endpoint"},
		{"no address", `{"Addr":""}`, "", "", "value has no Addr"},
		{"null", `null`, "", "", "value has no Addr"},
		{"deletion", `{"Op":1,"Addr":"a:1"}`, "", "", "stored deletion"},
		{"wrong op", `{"Op":"add","Addr":"a:1"}`, "", "", "value is not an endpoint"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte("svc/id"), Value: []byte(row.value), Lease: 7, CreateRevision: 2, ModRevision: 3})
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("got %v, %v, want an error with %q", got, err, row.err)
				}
				return
			}
			want := &rollcall.Instance{Key: "svc/id", Addr: row.addr, Lease: 7, CreateRevision: 2, ModRevision: 3}
			if row.metadata != "" {
				want.Metadata = json.RawMessage(row.metadata)
			}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// Whoever can write keys cannot have clients keep more in memory than metadata may have.
func TestDecodeKeepsNoValueWithoutMetadata(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("s/a"), Value: []byte(`{"Addr":"a:1","Other":"` + strings.Repeat("x", 1<<20) + `"}`)}
	value := weak.Make(&kv.Value[0])
	inst, err := rollcall.Decode(kv)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if value.Value() != nil {
		t.Error("the value is still in memory")
	}
	if inst.Addr != "a:1" || inst.Key != "s/a" {
		t.Errorf("got %+v", inst)
	}
}

func TestAttributes(t *testing.T) {
	invalid := func(field, reason string) []rollcall.FieldError {
		return []rollcall.FieldError{{Field: field, Reason: reason}}
	}
	const badWeight = "want a whole number from 1 to 4294967295"
	for _, row := range []struct {
		metadata string
		want     rollcall.Attributes
	}{
		{`"text"`, rollcall.Attributes{Weight: 1}},
		{`{}`, rollcall.Attributes{Weight: 1}},
		{`{"weight":4294967295,"region":"eu","zone":"eu-1","subzone":"a","version":"v2","status":"draining","other":[1]}`,
			rollcall.Attributes{Weight: 4294967295, Locality: rollcall.Locality{Region: "eu", Zone: "eu-1", Subzone: "a"}, Version: "v2", Draining: true}},
		{`{"status":"serving"}`, rollcall.Attributes{Weight: 1}},
		{`{"weight":0,"zone":"z"}`, rollcall.Attributes{Weight: 1, Locality: rollcall.Locality{Zone: "z"}, Invalid: invalid("weight", badWeight)}},
		{`{"weight":1.5}`, rollcall.Attributes{Weight: 1, Invalid: invalid("weight", badWeight)}},
		{`{"weight":4294967296}`, rollcall.Attributes{Weight: 1, Invalid: invalid("weight", badWeight)}},
		{`{"weight":"2"}`, rollcall.Attributes{Weight: 1, Invalid: invalid("weight", badWeight)}},
		{`{"zone":7}`, rollcall.Attributes{Weight: 1, Invalid: invalid("zone", "want a string")}},
		{`{"status":7}`, rollcall.Attributes{Weight: 1, Invalid: invalid("status", `want "serving" or "draining"`)}},
		{`{"weight":1e3,"hash_key":"h"}`, rollcall.Attributes{Weight: 1000, HashKey: "h"}},
		{`{"weight":2,"weight":2.0,"zone":"\u007a"}`, rollcall.Attributes{Weight: 2, Locality: rollcall.Locality{Zone: "z"}}},
		{`{"weight":null,"status":null,"zone":null}`, rollcall.Attributes{Weight: 1, Invalid: invalid("weight", badWeight)}},
		{`{"status":""}`, rollcall.Attributes{Weight: 1}},
		{`{"started":"x","host":7,"metrics_port":9090}`, rollcall.Attributes{Weight: 1, MetricsPort: 9090, Invalid: []rollcall.FieldError{
			{Field: "started", Reason: "want a time such as 2006-01-02T15:04:05Z"}, {Field: "host", Reason: "want a string"}}}},
		{`{"started":"2026-11-29T00:40:58Z","host":"node-7","metrics_port":0}`, rollcall.Attributes{Weight: 1, Host: "node-7",
			Started: time.Date(2026, 11, 29, 0, 40, 58, 0, time.UTC), Invalid: invalid("metrics_port", "want a port from 1 to 65535")}},
		{`{"started":"2026-11-29T01:40:58+01:00"}`, rollcall.Attributes{Weight: 1, Started: time.Date(2026, 11, 29, 0, 40, 58, 0, time.UTC)}},
		{`{"started":"2026-13-29T00:40:58Z"}`, rollcall.Attributes{Weight: 1, Invalid: invalid("started", "want a time such as 2006-01-02T15:04:05Z")}},
		{`{"status":"gone"}`, rollcall.Attributes{Weight: 1, Invalid: invalid("status", `want "serving" or "draining"`)}},
	} {
		t.Run(row.metadata, func(t *testing.T) {
			inst, err := rollcall.Decode(&mvccpb.KeyValue{Value: []byte(`{"Addr":"a:1","Metadata":` + row.metadata + `}`)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, inst.Attributes()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// What one reads and writes again reads the same; and a reader of etcd's own package
// agrees about what is an endpoint and which.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"Op":0,"Addr":"a:1","Metadata":{"weight":2}}`, `{"addr":"a","Metadata":"..."}`, `{}`, `null`,
		`{"Op":1,"Addr":"a"}`, `{"Addr":"\ud800","Metadata":[[]]}`, `{"Addr":"a","Metadata":1,"METADATA":null}`, `[`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte("s/i"), Value: value})
		var theirs struct {
			Op       uint8
			Addr     string
			Metadata any
		}
		theirErr := json.Unmarshal(value, &theirs)
		if err != nil {
			if theirErr == nil && theirs.Op == 0 && theirs.Addr != "" && len(value) <= rollcall.MaxMetadata {
				t.Fatalf("invalid: %q: %v", value, err)
			}
			return
		}
		if theirErr != nil || theirs.Addr != inst.Addr {
			t.Fatalf("read %q as %q; etcd's reader has %q, %v", value, inst.Addr, theirs.Addr, theirErr)
		}
		var metadata any
		if inst.Metadata != nil {
			if err := json.Unmarshal(inst.Metadata, &metadata); err != nil {
				t.Fatalf("metadata of %q: %v", value, err)
			}
		}
		if diff := cmp.Diff(theirs.Metadata, metadata); diff != "" {
			t.Fatalf("metadata of %q: %s", value, diff)
		}
		again, err := rollcall.Encode(inst.Addr, inst.Metadata)
		if err != nil {
			t.Fatalf("encode what %q holds: %v", value, err)
		}
		twice, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte("s/i"), Value: again})
		if err != nil || twice.Addr != inst.Addr {
			t.Fatalf("%q became %q: %v", value, again, err)
		}
	})
}

// Metadata of any kind is read the same way that encoding/json reads it into a struct
// field by field: a field of a wrong type keeps its default and is named, once.
func FuzzAttributes(f *testing.F) {
	for _, metadata := range []string{`{}`, `null`, `[]`, `7`, `{"weight":3,"zone":"z","region":"r","subzone":"s","version":"v","status":"draining"}`,
		`{"weight":0}`, `{"weight":4294967296}`, `{"weight":1.5}`, `{"weight":"3"}`, `{"weight":1e3}`, `{"zone":7,"status":"gone","version":null}`,
		`{"weight":1,"weight":2}`, `{"Weight":2}`, `{"zone":"\ud800"}`} {
		f.Add(metadata)
	}
	f.Fuzz(func(t *testing.T, metadata string) {
		value := `{"Addr":"a:1","Metadata":` + metadata + `}`
		inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte("svc/a"), Value: []byte(value)})
		if err != nil || inst.Addr != "a:1" || !json.Valid([]byte(metadata)) {
			return
		}
		a := inst.Attributes()
		var fields map[string]any
		if json.Unmarshal([]byte(metadata), &fields) != nil {
			fields = nil // no object
		}
		bad := make(map[string]bool)
		for _, invalid := range a.Invalid {
			if _, there := fields[invalid.Field]; !there || bad[invalid.Field] || invalid.Reason == "" {
				t.Errorf("%s: invalid %v", metadata, a.Invalid)
			}
			bad[invalid.Field] = true
		}
		for name, got := range map[string]string{"region": a.Locality.Region, "zone": a.Locality.Zone, "subzone": a.Locality.Subzone, "version": a.Version, "hash_key": a.HashKey, "host": a.Host} {
			text, isText := fields[name].(string)
			if got != text || bad[name] != (fields[name] != nil && !isText) {
				t.Errorf("%s: %s is %q, invalid: %v", metadata, name, got, bad[name])
			}
		}
		port, _ := fields["metrics_port"].(float64)
		if whole := port >= 1 && port <= 1<<16-1 && port == math.Trunc(port); whole && float64(a.MetricsPort) != port || !whole && a.MetricsPort != 0 {
			t.Errorf("%s: metrics_port is %d", metadata, a.MetricsPort)
		}
		started, _ := fields["started"].(string)
		if want, err := time.Parse(time.RFC3339, started); err == nil && !a.Started.Equal(want) || err != nil && !a.Started.IsZero() {
			t.Errorf("%s: started is %v", metadata, a.Started)
		}
		if status, _ := fields["status"].(string); a.Draining != (status == "draining") {
			t.Errorf("%s: draining is %v", metadata, a.Draining)
		}
		weight, _ := fields["weight"].(float64)
		if whole := weight >= 1 && weight <= 1<<32-1 && weight == math.Trunc(weight); whole && float64(a.Weight) != weight || !whole && a.Weight != 1 {
			t.Errorf("%s: weight is %d", metadata, a.Weight)
		}
	})
}

// What the default policy allows is a host and a port that net.Dial would take too.
func FuzzHostPort(f *testing.F) {
	for _, addr := range []string{"10.0.0.1:80", "host:1", "[::1]:443", "unix:/x", "http://a:1", "a:0", "a:65536", ":80", "[fe80::1%eth0]:1", "a b:1", "-:1"} {
		f.Add(addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		err := rollcall.HostPort(addr)
		if err != nil {
			if !errors.As(err, new(*rollcall.InputError)) {
				t.Errorf("%q: %v is no InputError", addr, err)
			}
			return
		}
		host, port, err := net.SplitHostPort(addr)
		n, convErr := strconv.Atoi(port)
		if err != nil || convErr != nil || n < 1 || n > 65535 || host == "" || strings.ContainsAny(host, "/@%? \t\n") {
			t.Errorf("%q was allowed", addr)
		}
	})
}

func TestInstanceID(t *testing.T) {
	for _, row := range []struct{ key, service, id string }{
		{"svc/a", "svc", "a"}, {"foo/bar/a", "foo/bar", "a"}, {"a", "", "a"}, {"/a", "", "a"}, {"a/", "a", ""},
	} {
		for _, inst := range []*rollcall.Instance{{Key: row.key}, decoded(t, row.key)} {
			if inst.Service() != row.service || inst.ID() != row.id {
				t.Errorf("%q: service %q, id %q, want %q and %q", row.key, inst.Service(), inst.ID(), row.service, row.id)
			}
		}
	}
}

func decoded(t *testing.T, key string) *rollcall.Instance {
	t.Helper()
	inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte(key), Value: []byte(`{"Addr":"a:1"}`)})
	if err != nil {
		t.Fatal(err)
	}
	return inst
}

func TestLocality(t *testing.T) {
	t.Setenv("ROLLCALL_REGION", "eu")
	t.Setenv("ROLLCALL_ZONE", "eu-1")
	t.Setenv("ROLLCALL_SUBZONE", "")
	l := rollcall.LocalityFromEnv()
	if want := (rollcall.Locality{Region: "eu", Zone: "eu-1"}); l != want {
		t.Errorf("got %v, want %v", l, want)
	}
	if got, want := l.String(), `{region="eu", zone="eu-1", sub_zone=""}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
