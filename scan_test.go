// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// FuzzScan checks that the quick parsers agree with encoding/json wherever they do not fail.
func FuzzScan(f *testing.F) {
	for _, value := range []string{
		`{"Op":0,"Addr":"a:1","Metadata":{"weight":3,"zone":"z","region":"r","subzone":"s","version":"v","status":"draining"}}`,
		`{"Addr":"a:1"}`, ` { "Addr" : "a:1" , "Metadata" : [ 1.5e-3 , true , null , { } , [ ] , -0.1 ] } `, `{"Addr":"a:1","Metadata":"text"}`,
		`{"Addr":"a:1","Metadata":null}`, `{"Addr":"a:1","Metadata":{"weight":0123}}`, `{"Addr":"a:1","Metadata":{"weight":4294967296}}`,
		`{"Addr":"a:1","Metadata":{"weight":1,"weight":2}}`, `{"addr":"a:1"}`, `{"Addr":"a:1","ADDR":"b:1"}`, `{"Addr":"a\u003a1"}`, `{"Addr":"é:1"}`,
		`{"Op":00,"Addr":"a:1"}`, `{"Op":0.0,"Addr":"a:1"}`, `{"Addr":"a:1",}`, `{"Addr":"a:1"}}`, `{"Addr":"a:1","Metadata":{"status":null}}`, `{"Addr":"a:1","Metadata":{"weight":2.0,"status":"","zone":""}}`, `{"Addr":"a:1","Metadata":{"weight":1e3}}`,
		`{"Addr":"a:1","Other":{"Addr":"b:1"},"Metadata":{"a":{"weight":2}}}`, `{"Addr":"a:1","Metadata":{"weight":2}`, `{,"Addr":"a:1"}`,
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		addr, metadata, ok := scanValue([]byte(value))
		if !ok {
			return
		}
		wantAddr, want, err := decodeValue([]byte(value))
		if err != nil || wantAddr != string(addr) || string(want) != string(metadata) || (want == nil) != (metadata == nil) {
			t.Fatalf("%q: read %q, %q; encoding/json has %q, %q, %v", value, addr, metadata, wantAddr, want, err)
		}
		var texts, wantTexts fieldTexts
		invalid := wantTexts.unmarshal(metadata)
		if texts.scan(metadata) {
			for i := range fields {
				if texts.get(i) != wantTexts.get(i) || len(invalid) > 0 {
					t.Fatalf("%q: read %q; encoding/json has %q, %v", metadata, texts, wantTexts, invalid)
				}
			}
		}
		inst := &Instance{Metadata: metadata}
		weight, hashKey := inst.WeightAndHashKey()
		if a := inst.Attributes(); weight != a.Weight || hashKey != a.HashKey {
			t.Fatalf("%q: weight %d, hash key %q, in all %+v", metadata, weight, hashKey, a)
		}
		if inst.Draining() != (wantTexts.get(fieldStatus) == StatusDraining) || inst.Draining() != inst.Attributes().Draining {
			t.Fatalf("%q: draining is %v", metadata, inst.Draining())
		}
	})
}

// Values of the usual form are read by the quick parsers.
func TestScanTakesWhatIsUsual(t *testing.T) {
	for _, metadata := range []any{nil, "...", 7, map[string]any{}, Attributes{Version: "v2"},
		map[string]any{"weight": 10, "zone": "eu-1", "status": "draining", "tags": []string{"a", "b"}, "load": -1.5e-7, "ok": true}} {
		value, err := Encode("10.0.0.7:50051", metadata)
		if err != nil {
			t.Fatal(err)
		}
		addr, data, ok := scanValue(value)
		if !ok || string(addr) != "10.0.0.7:50051" {
			t.Errorf("%s: address %q, %v", value, addr, ok)
		}
		if ok := new(fieldTexts).scan(data); ok != strings.HasPrefix(string(data), "{") {
			t.Errorf("%s: attributes %v", data, ok)
		}
	}
}

// A decode that knows the target's prefix splits the key there, and Equal ignores that.
func TestDecodeUnderPrefix(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("foo/bar/x/y"), Value: []byte(`{"Addr":"a:1"}`), ModRevision: 3}
	plain, err := Decode(kv)
	if err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string][2]string{
		"foo/bar/": {"foo/bar", "x/y"}, "foo/": {"foo", "bar/x/y"}, "": {"foo/bar/x", "y"}, "foo/ba": {"foo/bar/x", "y"},
	} {
		inst, err := decode(kv, prefix)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]string{inst.Service(), inst.ID()}; got != want || !inst.Equal(plain) {
			t.Errorf("under %q: %q, want %q; equal: %v", prefix, got, want, inst.Equal(plain))
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	s, err := ParseSelector("zone=eu-1&weight=10")
	if err != nil {
		b.Fatal(err)
	}
	inst := &Instance{Metadata: []byte(`{"weight":10,"zone":"eu-1"}`)}
	b.ReportAllocs()
	for b.Loop() {
		s.Matches(inst)
	}
}
