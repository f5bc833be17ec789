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

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

func TestDecide(t *testing.T) {
	const endpoint = `{"Addr":"h:1"}`
	held := []clientv3.LeaseID{7, 8, 9} // 9 is the present one
	under := func(lease int64, value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Lease: lease, Value: []byte(value)}
	}
	for _, row := range []struct {
		name    string
		kv      *mvccpb.KeyValue
		want    string
		claimed bool
		action  action
	}{
		{"nothing there, first time", nil, endpoint, false, actPut},
		{"nothing there, written before", nil, endpoint, true, actPut},
		{"somebody's, first time", under(5, endpoint), endpoint, false, actPut},
		{"of an old lease of ours, first time", under(8, endpoint), endpoint, false, actPut},
		{"ours already, first time", under(9, endpoint), endpoint, false, actKeep},
		{"no lease, first time", under(0, endpoint), endpoint, false, actPut},
		{"no lease, written before", under(0, endpoint), endpoint, true, actPut},
		{"a successor's", under(5, endpoint), endpoint, true, actYield},
		{"a successor's, a new value", under(5, endpoint), "new", true, actYield},
		{"a successor's, no endpoint", under(5, "x"), endpoint, true, actYield},
		{"ours", under(9, endpoint), endpoint, true, actKeep},
		{"ours, a new value", under(9, endpoint), "new", true, actPut},
		{"of a lease before", under(8, endpoint), endpoint, true, actPut},
		{"of the first lease", under(7, endpoint), endpoint, true, actPut},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := decide(row.kv, []byte(row.want), held, row.claimed); got != row.action {
				t.Errorf("got %d, want %d", got, row.action)
			}
		})
	}
}

func TestStrayed(t *testing.T) {
	r := &Registrar{lease: 9}
	for _, row := range []struct {
		name     string
		err      error
		lease    int64 // below 0: no key
		revision int64
		want     bool
	}{
		{"as it was", nil, 9, 3, false},
		{"gone", nil, -1, 0, true},
		{"written since", nil, 9, 4, true},
		{"restored from before", nil, 9, 2, true},
		{"superseded, gone", ErrSuperseded, -1, 0, true},
		{"superseded, still there", ErrSuperseded, 5, 4, false},
		{"superseded, no lease", ErrSuperseded, 0, 4, true},
		{"superseded, ours again", ErrSuperseded, 9, 4, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := &Registration{registrar: r, revision: 3, state: State{Phase: Lost, Err: row.err}}
			var kv *mvccpb.KeyValue
			if row.lease >= 0 {
				kv = &mvccpb.KeyValue{Lease: row.lease, ModRevision: row.revision}
			}
			if got := g.strayedLocked(kv); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestMergeEdits(t *testing.T) {
	value := func(addr, metadata string) string {
		return `{"Op":0,"Addr":"` + addr + `","Metadata":` + metadata + `}`
	}
	for _, row := range []struct{ name, base, wants, stands, want string }{
		{"nothing changed", value("h:1", "null"), value("h:1", "null"), value("h:1", "null"), value("h:1", "null")},
		{"the program's change", value("h:1", `{"a":1}`), value("h:1", `{"a":2}`), value("h:1", `{"a":1}`), value("h:1", `{"a":2}`)},
		{"an operator's edit, as it is", value("h:1", "null"), value("h:1", "null"), `{"Addr":"h:2","x":1}`, `{"Addr":"h:2","x":1}`},
		{"both, other fields", value("h:1", `{"version":"1"}`), value("h:1", `{"version":"2"}`), value("h:1", `{"version":"1","weight":9}`),
			value("h:1", `{"version":"2","weight":9}`)},
		{"both, the same field", value("h:1", `{"weight":1}`), value("h:1", `{"weight":2}`), value("h:1", `{"weight":9}`), value("h:1", `{"weight":2}`)},
		{"an operator's address", value("h:1", "null"), value("h:1", `{"weight":2}`), value("h:2", "null"), value("h:2", `{"weight":2}`)},
		{"the program drops a field", value("h:1", `{"a":1,"b":2}`), value("h:1", `{"b":2}`), value("h:1", `{"a":1,"b":3}`), value("h:1", `{"b":3}`)},
		{"an operator drops a field", value("h:1", `{"a":1,"b":2}`), value("h:1", `{"a":1,"b":3}`), value("h:1", `{"b":2}`), value("h:1", `{"b":3}`)},
		{"nothing is left", value("h:1", `{"a":1}`), value("h:1", "null"), value("h:1", `{"a":5}`), value("h:1", "null")},
		{"no object, the program's change", value("h:1", `"blue"`), value("h:1", `"red"`), value("h:1", `"green"`), value("h:1", `"red"`)},
		{"no object, an operator's edit", value("h:1", `"blue"`), value("h:2", `"blue"`), value("h:1", `"green"`), value("h:2", `"green"`)},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := mergeEdits([]byte(row.base), []byte(row.wants), []byte(row.stands))
			if err != nil || string(got) != row.want {
				t.Errorf("got %s, %v, want %s", got, err, row.want)
			}
		})
	}
}

func TestOutcomeUnknown(t *testing.T) {
	for _, row := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{rpctypes.ErrPermissionDenied, false},
		{rpctypes.ErrNoSpace, false},
		{rpctypes.ErrLeaseNotFound, false},
		{rpctypes.ErrRequestTooLarge, false},
		{rpctypes.ErrTimeout, true},
		{rpctypes.ErrLeaderChanged, true},
		{context.Canceled, true},
		{context.DeadlineExceeded, true},
		{status.Error(codes.Unavailable, "connection reset"), true},
	} {
		if got := etcdkv.OutcomeUnknown(row.err); got != row.want {
			t.Errorf("%v: got %v, want %v", row.err, got, row.want)
		}
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
