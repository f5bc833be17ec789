// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestDecide(t *testing.T) {
	const endpoint = `{"Addr":"h:1"}`
	held := []clientv3.LeaseID{7, 8, 9} // 9 is the present one
	under := func(lease int64, value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Lease: lease, Value: []byte(value)}
	}
	for _, row := range []struct {
		name           string
		kv             *mvccpb.KeyValue
		write, claimed bool
		want           action
	}{
		{"nothing there, first time", nil, true, false, actPut},
		{"nothing there, written before", nil, false, true, actPut},
		{"nothing there, a new value", nil, true, true, actPut},
		{"somebody's, first time", under(5, endpoint), true, false, actPut},
		{"of an old lease of ours, first time", under(8, endpoint), true, false, actPut},
		{"no lease, written before", under(0, endpoint), false, true, actPut},
		{"no lease, a new value", under(0, endpoint), true, true, actPut},
		{"a successor's", under(5, endpoint), false, true, actYield},
		{"a successor's, a new value", under(5, endpoint), true, true, actYield},
		{"a successor's, no endpoint", under(5, "x"), false, true, actYield},
		{"ours", under(9, endpoint), false, true, actKeep},
		{"ours, a new value", under(9, endpoint), true, true, actPut},
		{"ours, no endpoint", under(9, "x"), false, true, actPut},
		{"ours, a stored deletion", under(9, `{"Op":1,"Addr":"h:1"}`), false, true, actPut},
		{"of a lease before", under(8, endpoint), false, true, actMove},
		{"of the first lease", under(7, endpoint), false, true, actMove},
		{"of a lease before, a new value", under(8, endpoint), true, true, actPut},
		{"of a lease before, no endpoint", under(8, ""), false, true, actPut},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := decide(row.kv, held, row.write, row.claimed); got != row.want {
				t.Errorf("got %d, want %d", got, row.want)
			}
		})
	}
}

func TestStrayed(t *testing.T) {
	r := &Registrar{lease: 9}
	const ours = `{"Addr":"h:1"}`
	for _, row := range []struct {
		name  string
		err   error
		lease int64 // below 0: no key
		value string
		want  bool
	}{
		{"as it was", nil, 9, ours, false},
		{"gone", nil, -1, "", true},
		{"no lease", nil, 0, ours, true},
		{"another lease", nil, 5, ours, true},
		{"another value", nil, 9, "x", true},
		{"superseded, gone", ErrSuperseded, -1, "", true},
		{"superseded, still there", ErrSuperseded, 5, "x", false},
		{"superseded, no lease", ErrSuperseded, 0, "x", true},
		{"superseded, ours again", ErrSuperseded, 9, "x", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := &Registration{registrar: r, value: []byte(ours), state: State{Phase: Lost, Err: row.err}}
			var kvs []*mvccpb.KeyValue
			if row.lease >= 0 {
				kvs = append(kvs, &mvccpb.KeyValue{Lease: row.lease, Value: []byte(row.value)})
			}
			if got := r.strayedLocked(g, kvs); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestConcernsAll(t *testing.T) {
	for _, row := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{rpctypes.ErrPermissionDenied, false},
		{rpctypes.ErrNoSpace, false},
		{ErrSuperseded, false},
		{rpctypes.ErrLeaseNotFound, true},
		{fmt.Errorf("write: %w", rpctypes.ErrLeaseNotFound), true},
		{fmt.Errorf("write: %w", context.DeadlineExceeded), true},
		{context.Canceled, true},
		{fmt.Errorf("write: %w", status.Error(codes.Unavailable, "refused")), true},
	} {
		if got := concernsAll(row.err); got != row.want {
			t.Errorf("%v: got %v, want %v", row.err, got, row.want)
		}
	}
}

func TestDrained(t *testing.T) {
	for _, row := range []struct{ name, value, want string }{
		{"no metadata", `{"Addr":"h:1"}`, `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`},
		{"null", `{"Op":0,"Addr":"h:1","Metadata":null}`, `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`},
		{"other fields stay", `{"Addr":"h:1","Metadata":{"weight":3,"zone":"a"}}`,
			`{"Op":0,"Addr":"h:1","Metadata":{"status":"draining","weight":3,"zone":"a"}}`},
		{"another status", `{"Addr":"h:1","Metadata":{"status":"serving"}}`, `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`},
		{"already", `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`, `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`},
		{"a string carries no mark", `{"Addr":"h:1","Metadata":"blue"}`, ""},
		{"a number carries no mark", `{"Addr":"h:1","Metadata":7}`, ""},
		{"a list carries no mark", `{"Addr":"h:1","Metadata":[]}`, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := drained([]byte(row.value))
			var input *InputError
			switch {
			case row.want == "" && !errors.As(err, &input):
				t.Errorf("got %s, %v, want an *InputError", got, err)
			case row.want != "" && (err != nil || string(got) != row.want):
				t.Errorf("got %s, %v, want %s", got, err, row.want)
			}
		})
	}
	if _, err := drained([]byte("x")); err == nil {
		t.Error("no error for what is no endpoint")
	}
}

func TestPhaseString(t *testing.T) {
	for phase, want := range map[Phase]string{Registering: "registering", Registered: "registered",
		Lost: "lost", Draining: "draining", Closed: "closed"} {
		if got := phase.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
