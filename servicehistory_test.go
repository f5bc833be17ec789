// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// eventLine is an event as a line of text.
func eventLine(e rollcall.HistoryEvent) string {
	line := fmt.Sprintf("%d %s %s", e.Revision, e.Key, e.Type)
	if e.Departure != "" {
		line += " " + string(e.Departure)
	}
	for _, f := range e.Fields() {
		line += fmt.Sprintf(" %s:%s>%s", f.Field, f.Old, f.New)
	}
	if e.Invalid != nil {
		line += " " + e.Invalid.Cause.Error()
	}
	if e.Config != nil {
		line += " " + string(e.Config.JSON)
	}
	return line
}

func readHistory(t *testing.T, d *rollcall.Directory, opts rollcall.HistoryOptions) *rollcall.History {
	t.Helper()
	h, err := d.History(t.Context(), "svc", opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// wantHistory compares the events with lines, and what is said of their range.
func wantHistory(t *testing.T, h *rollcall.History, about, lines string) {
	t.Helper()
	var got strings.Builder
	for _, e := range h.Events {
		got.WriteString(eventLine(e) + "\n")
	}
	if want := strings.ReplaceAll(strings.TrimLeft(lines, "\n"), "\t", ""); strings.TrimSuffix(got.String(), "\n") != want {
		t.Errorf("got:\n%s\nwant:\n%s", &got, want)
	}
	if got := fmt.Sprintf("%d to %d, compacted %t, %d omitted, %d keys", h.First, h.Last, h.Compacted, h.Omitted, h.Keys); got != about {
		t.Errorf("got %s, want %s", got, about)
	}
}

func TestServiceHistory(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		one, many := grant(t, conn, 5), grant(t, conn, 6)
		put(t, conn, "svc/a", `{"Addr":"a:1","Metadata":{"weight":1}}`, clientv3.WithLease(one))
		put(t, conn, "svc-other/a", `{"Addr":"a:1"}`)
		put(t, conn, "svc/a", `{"Addr":"a:2","Metadata":{"weight":10,"zone":"z"}}`, clientv3.WithLease(one))
		put(t, conn, "svc/a", `{"Addr":"a:2","Metadata":{"weight":10,"status":"draining"}}`, clientv3.WithIgnoreLease())
		put(t, conn, "svc/a", `{"Addr":"a:2","Metadata":{"weight":10}}`, clientv3.WithIgnoreLease())
		put(t, conn, "svc/b/1", `{"Addr":"b:1"}`, clientv3.WithLease(many))
		put(t, conn, "svc/b/2", `{"Addr":"b:2","Metadata":{"status":"draining"}}`, clientv3.WithLease(many))
		put(t, conn, "svc/b/3", `not JSON`, clientv3.WithLease(many))
		put(t, conn, "_grpc_config/svc", `{}`)
		time.Sleep(10 * time.Second) // two revisions: the leases expire
		store.Delete("_grpc_config/svc")
		put(t, conn, "svc/c", `{"Addr":"c:1"}`)
		put(t, conn, "svc/c", `{"Addr":"c:1"}`)
		store.Delete("svc/c")
		lives := grant(t, conn, 3600)
		put(t, conn, "svc/d", `{"Addr":"d:1"}`, clientv3.WithLease(lives))
		store.Delete("svc/d")
		put(t, conn, "svc/e", `{"Addr":"e:1","Metadata":{"status":"draining"}}`, clientv3.WithLease(lives))
		store.Delete("svc/e")

		all := `
		2 svc/a came
		4 svc/a changed address:"a:1">"a:2" weight:1>10 zone:>"z"
		5 svc/a drained status:>"draining" zone:"z">
		6 svc/a undrained status:"draining">
		7 svc/b/1 came
		8 svc/b/2 came
		9 svc/b/3 invalid value is not an endpoint: invalid character 'o' in literal null (expecting 'u')
		10 _grpc_config/svc config {}
		11 svc/a gone expired
		12 svc/b/1 gone expired
		12 svc/b/2 gone left
		12 svc/b/3 gone expired
		13 _grpc_config/svc config 
		14 svc/c came
		15 svc/c changed
		16 svc/c gone deleted
		17 svc/d came
		18 svc/d gone deleted
		19 svc/e came
		20 svc/e gone left`
		wantHistory(t, readHistory(t, d, rollcall.HistoryOptions{}), "1 to 20, compacted false, 0 omitted, 0 keys", all)
		wantHistory(t, readHistory(t, d, rollcall.HistoryOptions{From: 20}), "20 to 20, compacted false, 0 omitted, 0 keys", "20 svc/e gone left")
		wantHistory(t, readHistory(t, d, rollcall.HistoryOptions{Limit: 2}), "19 to 20, compacted false, 18 omitted, 0 keys",
			"19 svc/e came\n20 svc/e gone left")
		if h := readHistory(t, d, rollcall.HistoryOptions{From: 21}); len(h.Events) > 0 || h.First != 21 || h.Last != 20 {
			t.Errorf("of the future: got %+v", h)
		}

		// What a compaction left has the state before it.
		if err := store.Compact(17); err != nil {
			t.Fatal(err)
		}
		wantHistory(t, readHistory(t, d, rollcall.HistoryOptions{}), "18 to 20, compacted true, 0 omitted, 0 keys",
			"18 svc/d gone deleted\n19 svc/e came\n20 svc/e gone left")
	})
}

// Where no lease can be asked, etcd's memory still tells some: a lease that was used later lived,
// and what deletes all keys of one lease at once is the lease's end.
func TestServiceHistoryWithoutLeases(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		used, mixed, ended, alone := grant(t, conn, 3600), grant(t, conn, 3600), grant(t, conn, 5), grant(t, conn, 6)
		put(t, conn, "svc/a", `{"Addr":"a:1"}`, clientv3.WithLease(used))
		store.Delete("svc/a")
		put(t, conn, "svc/a", `{"Addr":"a:1"}`, clientv3.WithLease(used))
		put(t, conn, "svc/b", `{"Addr":"b:1"}`, clientv3.WithLease(mixed))
		put(t, conn, "svc/c", `{"Addr":"c:1"}`, clientv3.WithLease(used))
		if _, err := conn.Client.Delete(t.Context(), "svc/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		put(t, conn, "svc/e1", `{"Addr":"e:1"}`, clientv3.WithLease(ended))
		put(t, conn, "svc/e2", `{"Addr":"e:2"}`, clientv3.WithLease(ended))
		put(t, conn, "svc/f", `{"Addr":"f:1"}`, clientv3.WithLease(alone))
		time.Sleep(10 * time.Second)
		conn.Fail(fakeetcd.TimeToLive, rpctypes.ErrPermissionDenied)
		wantHistory(t, readHistory(t, d, rollcall.HistoryOptions{}), "1 to 12, compacted false, 0 omitted, 0 keys", `
		2 svc/a came
		3 svc/a gone deleted
		4 svc/a came
		5 svc/b came
		6 svc/c came
		7 svc/a gone deleted
		7 svc/b gone deleted
		7 svc/c gone deleted
		8 svc/e1 came
		9 svc/e2 came
		10 svc/f came
		11 svc/e1 gone expired
		11 svc/e2 gone expired
		12 svc/f gone unknown`)
	})
}

func TestServiceHistoryFails(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		put(t, conn, "svc/a", `{"Addr":"a:1"}`)
		var input *rollcall.InputError
		if _, err := d.History(t.Context(), "//", rollcall.HistoryOptions{}); !errors.As(err, &input) {
			t.Errorf("no service: got %v", err)
		}
		if _, err := d.History(t.Context(), "svc", rollcall.HistoryOptions{From: -1}); !errors.As(err, &input) {
			t.Errorf("negative: got %v", err)
		}
		conn.FailNext(fakeetcd.Get, rpctypes.ErrPermissionDenied)
		if _, err := d.History(t.Context(), "svc", rollcall.HistoryOptions{}); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("refused: got %v", err)
		}
		conn.FailNext(fakeetcd.Get, nil, rpctypes.ErrPermissionDenied)
		if h := readHistory(t, d, rollcall.HistoryOptions{}); len(h.Events) != 1 || !errors.Is(h.ConfigErr, rpctypes.ErrPermissionDenied) {
			t.Errorf("without the right to the service config: got %+v", h)
		}
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if _, ok := call.Request.(*etcdserverpb.WatchCreateRequest); ok {
				conn.Freeze()
			}
			return nil
		})
		began := time.Now()
		if _, err := d.History(t.Context(), "svc", rollcall.HistoryOptions{}); !errors.Is(err, rollcall.ErrNoAnswer) {
			t.Errorf("silent: got %v", err)
		}
		if took := time.Since(began); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("gave up after %v", took)
		}
		d.Close()
		if _, err := d.History(t.Context(), "svc", rollcall.HistoryOptions{}); !errors.Is(err, rollcall.ErrClosed) {
			t.Errorf("closed: got %v", err)
		}
	})
}
