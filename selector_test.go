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
	plain, _ := ParseSelector("weight=1&status=serving&zone=")
	if !plain.Matches(&Instance{}) {
		t.Error("an instance without metadata has the defaults")
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
