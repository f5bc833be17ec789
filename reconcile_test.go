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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// TestReconcile walks every edge of the diagram above reconcile.
func TestReconcile(t *testing.T) {
	const (
		endpoint = `{"Op":0,"Addr":"h:1","Metadata":null}`
		weighted = `{"Op":0,"Addr":"h:1","Metadata":{"weight":2}}`
		draining = `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`
	)
	wants := func(value string) desired { return desired{plain: []byte(value), value: []byte(value)} }
	removed := func() desired { d, _ := wants(endpoint).with([]byte(endpoint), true); d.removed = true; return d }()
	// found is a key in a state, written by this registration before if it is claimed.
	found := func(state keyState, value string, claimed bool) observed {
		o := observed{fresh: true, state: state, claimed: claimed, values: values{applied: []byte(endpoint), current: []byte(endpoint)}}
		if state != keyAbsent {
			o.kv = &mvccpb.KeyValue{Value: []byte(value), Lease: int64(state), ModRevision: 5}
		}
		return o
	}
	stale := func(o observed) observed { o.fresh = false; return o }
	tried := func(o observed) observed { o.tried = true; return o }
	landing := func(o observed) observed { o.landing = true; return o }
	sent := func(o observed, replaced int64) observed {
		o.sending([]byte(weighted), []byte(weighted), replaced)
		return o
	}
	edited := func(o observed, value, status string) observed { o.current, o.status = []byte(value), status; return o }
	for _, row := range []struct {
		name     string
		desired  desired
		observed observed
		action   action
		phase    Phase
	}{
		// Registering.
		{"first put, without a read", wants(endpoint), stale(found(keyAbsent, "", false)), actPut, Registering},
		{"first put was refused", wants(endpoint), found(keyAbsent, "", false), actPut, Registering},
		{"a predecessor's key is taken over", wants(endpoint), found(keyForeign, endpoint, false), actPut, Registering},
		{"so is one without a lease", wants(endpoint), found(keyUnleased, endpoint, false), actPut, Registering},
		{"so is one of an earlier lease", wants(endpoint), found(keyFormer, endpoint, false), actPut, Registered},
		{"the key is as desired already", wants(endpoint), found(keyOurs, endpoint, false), actKeep, Registered},
		{"what was read may be out of date", wants(endpoint), stale(found(keyOurs, endpoint, false)), actRead, Registered},
		{"so may a predecessor's", wants(endpoint), stale(found(keyForeign, endpoint, false)), actRead, Registering},
		{"the first put is known to have happened", wants(endpoint), sent(found(keyOurs, endpoint, false), 0), actKeep, Registered},
		// Registered and Draining.
		{"a reason to look", wants(endpoint), stale(found(keyOurs, endpoint, true)), actRead, Registered},
		{"as desired", wants(endpoint), found(keyOurs, endpoint, true), actKeep, Registered},
		{"as desired, and an unanswered write may still happen", wants(endpoint), sent(found(keyOurs, endpoint, true), 5), actPut, Registered},
		{"as desired, and an unanswered write comes too late", wants(endpoint), sent(found(keyOurs, endpoint, true), 4), actKeep, Registered},
		{"update", wants(weighted), found(keyOurs, endpoint, true), actPut, Registered},
		{"drain", wants(draining), found(keyOurs, endpoint, true), actPut, Registered},
		{"drained", wants(draining), edited(found(keyOurs, draining, true), draining, ""), actKeep, Draining},
		{"undrain", wants(endpoint), found(keyOurs, draining, true), actPut, Draining},
		{"an operator's edit is kept", wants(endpoint), edited(found(keyOurs, weighted, true), weighted, ""), actKeep, Registered},
		{"an operator's drain is kept", wants(endpoint), edited(found(keyOurs, draining, true), draining, StatusDraining), actKeep, Draining},
		{"the lease was replaced", wants(endpoint), found(keyFormer, endpoint, true), actPut, Registered},
		// Lost.
		{"a reason to look for what is lost", wants(endpoint), stale(found(keyAbsent, "", true)), actRead, Lost},
		{"deleted", wants(endpoint), found(keyAbsent, "", true), actPut, Lost},
		{"overwritten", wants(endpoint), found(keyOurs, "no endpoint", true), actPut, Lost},
		{"put without a lease", wants(endpoint), found(keyUnleased, endpoint, true), actPut, Lost},
		{"a successor's", wants(endpoint), found(keyForeign, endpoint, true), actYield, Lost},
		{"a successor's, and an update", wants(weighted), found(keyForeign, endpoint, true), actYield, Lost},
		{"a successor's that is no endpoint", wants(endpoint), found(keyForeign, "no endpoint", true), actYield, Lost},
		// To Closed.
		{"removed, not read yet", removed, stale(found(keyOurs, endpoint, true)), actRead, Registered},
		{"removed before the first put", removed, stale(found(keyAbsent, "", false)), actRead, Registering},
		{"removed", removed, found(keyOurs, endpoint, true), actMark, Registered},
		{"removed, marked or refused the mark", removed, tried(found(keyOurs, endpoint, true)), actDelete, Registered},
		{"removed, marked already", removed, found(keyOurs, draining, true), actDelete, Draining},
		{"removed, overwritten", removed, found(keyOurs, "no endpoint", true), actDelete, Lost},
		{"removed, of an earlier lease", removed, found(keyFormer, endpoint, true), actMark, Registered},
		{"removed, left by the last registration of the key", removed, found(keyOurs, endpoint, false), actMark, Registered},
		{"removed, put without a lease", removed, found(keyUnleased, endpoint, true), actAdopt, Lost},
		{"removed, never ours and without a lease", removed, found(keyUnleased, endpoint, false), actFinish, Closed},
		{"removed, a create may happen", removed, landing(found(keyAbsent, "", true)), actFence, Lost},
		{"removed, a create may happen after a successor's", removed, landing(found(keyForeign, endpoint, true)), actFence, Lost},
		{"removed, a successor's", removed, found(keyForeign, endpoint, true), actFinish, Closed},
		{"removed, gone", removed, found(keyAbsent, "", true), actFinish, Closed},
	} {
		t.Run(row.name, func(t *testing.T) {
			act, phase := reconcile(row.desired, &row.observed)
			if act != row.action || phase != row.phase {
				t.Errorf("got action %d in phase %v, want %d in %v", act, phase, row.action, row.phase)
			}
		})
	}
}

// TestObserve tells what counts as an operator's edit.
func TestObserve(t *testing.T) {
	const (
		written  = `{"Op":0,"Addr":"h:1","Metadata":{"weight":1}}`
		sent     = `{"Op":0,"Addr":"h:1","Metadata":{"weight":2}}`
		edit     = `{"Op":0,"Addr":"h:1","Metadata":{"weight":9}}`
		draining = `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining","weight":1}}`
	)
	for _, row := range []struct {
		name     string
		claimed  bool
		state    keyState
		value    string
		revision int64
		edited   bool
		current  string // afterwards
		status   string
	}{
		{"as it was written", true, keyOurs, written, 5, false, written, ""},
		{"an edit", true, keyOurs, edit, 6, true, edit, ""},
		{"an edit without a lease", true, keyUnleased, edit, 6, true, edit, ""},
		{"an edit under an earlier lease", true, keyFormer, edit, 6, true, edit, ""},
		{"an operator's status", true, keyOurs, draining, 6, true, draining, StatusDraining},
		{"an edit from before the last write: etcd was restored", true, keyOurs, edit, 4, false, written, ""},
		{"a write without an answer", true, keyOurs, sent, 6, false, sent, ""},
		{"a write without an answer, the first", false, keyOurs, sent, 6, false, sent, ""},
		{"a predecessor's", false, keyOurs, edit, 6, false, written, ""},
		{"a successor's", true, keyForeign, edit, 6, false, written, ""},
		{"no endpoint", true, keyOurs, "no endpoint", 6, false, written, ""},
		{"deleted", true, keyAbsent, "", 0, false, written, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := observed{claimed: row.claimed, revision: 5, values: values{applied: []byte(written), current: []byte(written)}}
			o.sending([]byte(sent), []byte(sent), 5)
			var kv *mvccpb.KeyValue
			if row.state != keyAbsent {
				kv = &mvccpb.KeyValue{Value: []byte(row.value), ModRevision: row.revision}
			}
			if edited := o.observe(kv, row.state); edited != row.edited || string(o.current) != row.current || o.status != row.status || !o.fresh {
				t.Errorf("got edited %v, current %s, status %q, want %v, %s, %q", edited, o.current, o.status, row.edited, row.current, row.status)
			}
			if want := map[bool]string{true: sent, false: written}[row.current == sent]; string(o.applied) != want {
				t.Errorf("applied %s, want %s", o.applied, want)
			}
		})
	}
}

// Of a program's Drain and an operator's status the later one counts.
func TestDrainBesideAnOperator(t *testing.T) {
	const (
		endpoint = `{"Op":0,"Addr":"h:1","Metadata":null}`
		weighted = `{"Op":0,"Addr":"h:1","Metadata":{"weight":2}}`
		draining = `{"Op":0,"Addr":"h:1","Metadata":{"status":"draining"}}`
	)
	for _, row := range []struct {
		name             string
		value            string // desired before
		applied, current string
		want             string // applied afterwards
	}{
		{"not drained yet", endpoint, endpoint, endpoint, endpoint},
		{"drained", draining, draining, draining, draining},
		{"drained, and an operator has removed the mark", draining, draining, endpoint, endpoint},
		{"drained, and not written yet", draining, endpoint, endpoint, endpoint},
		{"an update that is not written yet", endpoint, weighted, weighted, weighted},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := desired{plain: []byte(endpoint), value: []byte(row.value), draining: row.value == draining}
			o := observed{values: values{applied: []byte(row.applied), current: []byte(row.current)}}
			o.draining(d)
			if string(o.applied) != row.want {
				t.Errorf("applied %s, want %s", o.applied, row.want)
			}
			if d, _ = d.with(d.plain, true); statusOf(o.target(d.value)) != StatusDraining {
				t.Errorf("the target %s is not marked", o.target(d.value))
			}
		})
	}
}

func TestChangedSinceObserved(t *testing.T) {
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
			g := &Registration{registrar: r, observed: observed{revision: 3}, state: State{Phase: Lost, Err: row.err}}
			var kv *mvccpb.KeyValue
			if row.lease >= 0 {
				kv = &mvccpb.KeyValue{Lease: row.lease, ModRevision: row.revision}
			}
			if got := g.changedLocked(kv); got != row.want {
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
		{rpctypes.ErrTooManyRequests, false},
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
		{rpctypes.ErrTooManyRequests, true},
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
