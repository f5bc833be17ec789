// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// A change to endpoints of all services is that of each service, as a list of all services shows them; what clients of a
// service call are those of services within it, too.
func TestParts(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	fillZones(t, client, "s", "s/geo", "s/geo/eu", "sea")
	dir := directory(t, client)
	snap, err := dir.ListPrefix(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := zone(t, "a")(snap)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range Parts(snap, slices.DeleteFunc(keys, func(k Key) bool { return k.Key == "s/geo/1" })) {
		got = append(got, fmt.Sprintf("%s: %d of %d keys, %d instances", p.Service, p.Own, len(p.Keys), len(p.Instances)))
	}
	if want := []string{"s: 1 of 2 keys, 6 instances", "s/geo/eu: 1 of 1 keys, 2 instances", "sea: 1 of 1 keys, 2 instances"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}

	keys, err = Everything(snap)
	if err != nil {
		t.Fatal(err)
	}
	var last *LastServingError
	if _, err := KeepServing(snap, keys); !errors.As(err, &last) || !slices.Equal(last.Services, []string{"s", "s/geo", "s/geo/eu", "sea"}) {
		t.Errorf("a drain of all: %v", err)
	}

	selector, err := rollcall.ParseSelector("zone=a")
	if err != nil {
		t.Fatal(err)
	}
	done, err := Apply(t.Context(), dir, "s/geo", SelectedOf("s/geo", selector), KeepServing, drain)
	if err != nil || len(done.Written) != 1 || done.Written[0].Key.Key != "s/geo/1" {
		t.Errorf("drained %v: %v", done.Written, err)
	}
	var missing *NotFoundError
	if _, err := Apply(t.Context(), dir, "sea", SelectedOf("sea/geo", selector), KeepServing, drain); !errors.As(err, &missing) {
		t.Errorf("nothing of a service: %v, want a NotFoundError", err)
	}
}
