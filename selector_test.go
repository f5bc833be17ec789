// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"errors"
	"strings"
	"testing"
)

func TestSelector(t *testing.T) {
	inst := &Instance{Metadata: []byte(`{"weight":7,"zone":"eu-1","version":"v2","region":"eu"}`)}
	for query, want := range map[string]bool{
		"":                              true,
		"zone=eu-1":                     true,
		"zone=eu-2":                     false,
		"zone=eu-2&zone=eu-1":           true,
		"zone=eu-1&version=v1":          false,
		"zone=eu-1&version=v2&weight=7": true,
		"weight=1":                      false,
		"status=serving":                true,
		"status=draining":               false,
		"subzone=":                      true,
		"region=eu&subzone=a":           false,
	} {
		s, err := ParseSelector(query)
		if err != nil {
			t.Errorf("%q: %v", query, err)
		} else if got := s.Matches(inst); got != want {
			t.Errorf("%q matches the instance: %v, want %v", query, got, want)
		}
	}
	for _, row := range []struct {
		addr, metadata, host string
		want                 bool
	}{
		{"10.0.0.7:80", `{"host":"node-11"}`, "node-11", true},
		{"10.0.0.7:80", `{"host":"node-11"}`, "10.0.0.7", true},
		{"10.0.0.7:80", `{"host":"node-11"}`, "10.0.0.70", false},
		{"10.0.0.7:80", `{"host":"node-11"}`, "10.0.0.7:80", false},
		{"node-11:80", ``, "node-11", true},
		{"[2001:db8::7]:80", ``, "2001:db8::7", true},
		{"[2001:db8::7]:80", ``, "[2001:db8::7]", true},
		{"unix:/x", `{"host":"node-11"}`, "node-11", true},
		{"10.0.0.7:80", `{"host":7}`, "7", false},
	} {
		s, err := ParseSelector("host=" + row.host)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(&Instance{Addr: row.addr, Metadata: []byte(row.metadata)}); got != row.want {
			t.Errorf("host=%s matches %s with %s: %v, want %v", row.host, row.addr, row.metadata, got, row.want)
		}
	}
	plain, _ := ParseSelector("weight=1&status=serving&zone=")
	if !plain.Matches(&Instance{}) {
		t.Error("an instance without metadata has the defaults")
	}
}

// A selector that names no host costs nothing but what the scan of the metadata does.
func TestMatchesDoesNotAllocate(t *testing.T) {
	inst := &Instance{Addr: "10.0.0.7:80", Metadata: []byte(`{"weight":10,"zone":"eu-1","host":"node-11"}`)}
	for _, query := range []string{"zone=eu-1&weight=10", "host=node-11", "host=10.0.0.7"} {
		s, err := ParseSelector(query)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { s.Matches(inst) }); n > 0 {
			t.Errorf("%s: %v allocations", query, n)
		}
	}
}

func TestSelectorsAreEqual(t *testing.T) {
	a, _ := ParseSelector("zone=b&zone=a&version=1")
	b, err := ParseSelector("version=1&zone=a&zone=b&zone=a")
	if err != nil || a.String() != b.String() || a.String() != "version=1&zone=a&zone=b" {
		t.Errorf("%q and %q, %v", a, b, err)
	}
}

func TestSelectorInvalid(t *testing.T) {
	for query, want := range map[string]string{
		"colour=red":     `unknown field "colour"`,
		"Zone=a":         `unknown field "Zone"`,
		"zone=%zz":       "not a query",
		"zone=a;zone=b":  "not a query",
		"weight=0":       `weight is "0"`,
		"weight=heavy":   `weight is "heavy"`,
		"weight=01":      `weight is "01"`,
		"status=passing": `status is "passing"`,
	} {
		_, err := ParseSelector(query)
		if !errors.As(err, new(*InputError)) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an InputError with %s", query, err, want)
		}
	}
}
