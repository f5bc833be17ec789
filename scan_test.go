// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"reflect"
	"strings"
	"testing"
)

// What the quick reader answers is what encoding/json answers, byte for byte; and it
// answers for every value in its usual form.
func FuzzScan(f *testing.F) {
	for _, value := range []string{
		`{"Op":0,"Addr":"a:1","Metadata":{"weight":3,"zone":"z","region":"r","subzone":"s","version":"v","status":"draining"}}`,
		`{"Addr":"a:1"}`, ` { "Addr" : "a:1" , "Metadata" : [ 1.5e-3 , true , null , { } , [ ] , -0.1 ] } `, `{"Addr":"a:1","Metadata":"text"}`,
		`{"Addr":"a:1","Metadata":null}`, `{"Addr":"a:1","Metadata":{"weight":0123}}`, `{"Addr":"a:1","Metadata":{"weight":4294967296}}`,
		`{"Addr":"a:1","Metadata":{"weight":1,"weight":2}}`, `{"addr":"a:1"}`, `{"Addr":"a:1","ADDR":"b:1"}`, `{"Addr":"a\u003a1"}`, `{"Addr":"é:1"}`,
		`{"Op":00,"Addr":"a:1"}`, `{"Op":0.0,"Addr":"a:1"}`, `{"Addr":"a:1",}`, `{"Addr":"a:1"}}`, `{"Addr":"a:1","Metadata":{"status":null}}`,
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
		if a, ok := scanAttributes(metadata); ok && !reflect.DeepEqual(a, parseAttributes(metadata)) {
			t.Fatalf("%q: read %+v; encoding/json has %+v", metadata, a, parseAttributes(metadata))
		}
		inst := &Instance{Metadata: metadata}
		if inst.Draining() != parseAttributes(metadata).Draining {
			t.Fatalf("%q: draining is %v", metadata, inst.Draining())
		}
	})
}

// The usual values do not take the long way.
func TestScanTakesWhatIsUsual(t *testing.T) {
	for _, metadata := range []any{nil, "...", 7, map[string]any{}, Attributes{Zone: "eu-1"},
		map[string]any{"weight": 10, "zone": "eu-1", "status": "draining", "tags": []string{"a", "b"}, "load": -1.5e-7, "ok": true}} {
		value, err := Encode("10.0.0.7:50051", metadata)
		if err != nil {
			t.Fatal(err)
		}
		addr, data, ok := scanValue(value)
		if !ok || string(addr) != "10.0.0.7:50051" {
			t.Errorf("%s: address %q, %v", value, addr, ok)
		}
		if _, ok := scanAttributes(data); ok != strings.HasPrefix(string(data), "{") {
			t.Errorf("%s: attributes %v", data, ok)
		}
	}
}
