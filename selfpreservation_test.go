// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// shown lists what is present and what is retained, by id.
func shown(sub *rollcall.Subscription) string {
	synctest.Wait()
	snap := sub.Latest()
	line := ""
	for inst := range snap.All() {
		line += inst.ID()
	}
	line += "|"
	for _, inst := range snap.Retained() {
		line += inst.ID()
	}
	return line
}

func TestG6MassLossIsRetained(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{
			SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		put := func(ids string, metadata string) {
			for _, id := range ids {
				store.Put("svc/"+string(id), fmt.Sprintf(`{"Addr":"%c:1","Metadata":%s}`, id, metadata))
			}
		}
		del := func(ids string) {
			for _, id := range ids {
				store.Delete("svc/" + string(id))
			}
		}
		put("abcd", "null")
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		want := func(want string) {
			t.Helper()
			time.Sleep(300 * time.Millisecond) // the longest pause between two publications
			if got := shown(sub); got != want {
				t.Errorf("shown %s, want %s", got, want)
			}
		}
		del("a")
		want("bcd|")
		del("b")
		want("cd|") // half is not more than half
		del("c")
		want("d|abc")
		if got := d.Stats(); got.Retained != 3 || got.SelfPreservations != 1 {
			t.Errorf("stats %+v, want 3 retained by 1 self-preservation", got)
		}
		put("c", "null")
		want("cd|") // two of four are missing
		del("c")
		want("d|abc")
		time.Sleep(59 * time.Second) // a and b were lost over a minute ago, c was not
		want("d|")
		time.Sleep(time.Minute)

		// What was marked draining went on purpose, even where mark and deletion were one
		// publication, and an invalid value was written.
		put("abc", "null")
		want("abcd|")
		for _, id := range "abc" {
			put(string(id), `{"status":"draining"}`)
			del(string(id))
		}
		want("d|")
		put("abc", "null")
		want("abcd|")
		for _, id := range "abc" {
			store.Put("svc/"+string(id), "not JSON")
		}
		want("d|")

		// A loss that happened while cut off is one too, and so is a wiped store.
		del("abc")
		put("abc", "null")
		want("abcd|")
		conn.Cut()
		del("abd")
		time.Sleep(20 * time.Second)
		conn.Mend()
		time.Sleep(10 * time.Second)
		want("c|abd")
		time.Sleep(time.Minute)
		want("c|")
		put("abd", "null")
		want("abcd|")
		store.Wipe()
		time.Sleep(20 * time.Second) // silence is noticed
		want("|abcd")
		put("ab", "null")
		want("ab|")
	})
}

// A retained instance expires in time, whatever the Reflector waits for meanwhile.
func TestRetentionEndsWhileTheReflectorWaits(t *testing.T) {
	for name, block := range map[string]func(conn *fakeetcd.Conn){
		"for a list": func(conn *fakeetcd.Conn) {
			conn.SetHook(func(ctx context.Context, call fakeetcd.Call) error {
				if call.Method == fakeetcd.Get && call.End != "" {
					time.Sleep(4900 * time.Millisecond)
				}
				return nil
			})
			conn.CancelWatches(rpctypes.ErrCompacted)
		},
		"for etcd": (*fakeetcd.Conn).Cut,
		"for rights": func(conn *fakeetcd.Conn) {
			conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
			conn.CancelWatches(rpctypes.ErrCompacted)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: 2 * time.Second}})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				for _, id := range "abc" {
					store.Put("svc/"+string(id), fmt.Sprintf(`{"Addr":"%c:1"}`, id))
				}
				sub := subscribe(t, d, "svc")
				defer sub.Close()
				next(t, sub)
				for _, id := range "abc" {
					store.Delete("svc/" + string(id))
				}
				time.Sleep(time.Second)
				block(conn)
				if got := shown(sub); got != "|abc" {
					t.Errorf("shown %s, want all retained", got)
				}
				time.Sleep(1500 * time.Millisecond)
				if got := shown(sub); got != "|" {
					t.Errorf("shown %s after the longest retention, want nothing", got)
				}
				conn.SetHook(nil)
				time.Sleep(10 * time.Second)
			})
		})
	}
}

func TestNothingRetainedByDefault(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		store.Put("svc/a", `{"Addr":"a:1"}`)
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		store.Delete("svc/a")
		if snap := next(t, sub); snap.Len() != 0 || len(snap.Retained()) != 0 {
			t.Errorf("left %v, retained %v", describe(snap), snap.Retained())
		}
	})
}

func TestBadOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(t.Context())
		defer conn.Close()
		for _, opts := range []rollcall.DirectoryOptions{
			{SelfPreservation: rollcall.SelfPreservation{Share: 1}},
			{SelfPreservation: rollcall.SelfPreservation{Share: -0.1}},
			{SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: -1}},
			{CacheDir: "/dev/null/cache"},
			{ConsistencyCheckPeriod: time.Millisecond},
			{ConsistencyCheckPeriod: 1 << 62},
		} {
			_, err := rollcall.NewDirectory(conn.Client, opts)
			if !errors.As(err, new(*rollcall.InputError)) || !strings.HasPrefix(err.Error(), "invalid ") {
				t.Errorf("%+v: got %v, want an InputError", opts, err)
			}
		}
	})
}
