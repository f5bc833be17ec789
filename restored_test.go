// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// What a backup holds again under our lease, and nobody registers, is deleted; what others
// hold, and what is registered, is not.
func TestRestoredKeysAreDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		directory, err := rollcall.SharedDirectory(conn.Client)
		if err != nil {
			t.Fatal(err)
		}
		r, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Shutdown(t.Context())
		stay, err := r.Register("svc", rollcall.Endpoint{Addr: "stay:1"})
		if err != nil {
			t.Fatal(err)
		}
		leave, err := r.Register("svc", rollcall.Endpoint{Addr: "leave:1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []*rollcall.Registration{stay, leave} {
			if err := g.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		store.Put("svc/other", `{"Addr":"other:1"}`)
		state, _ := stay.State()
		if _, err := conn.Client.Put(t.Context(), "mine", "under the same lease", clientv3.WithLease(state.Lease)); err != nil {
			t.Fatal(err)
		}
		backup := store.Snapshot()
		if err := leave.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		store.Restore(backup, 0)
		if _, back := store.Values()["svc/leave:1"]; !back {
			t.Fatal("the backup does not hold it")
		}
		time.Sleep(10 * time.Minute)
		got := store.Values()
		if _, ghost := got["svc/leave:1"]; ghost || got["svc/stay:1"] == "" || got["svc/other"] == "" || got["mine"] == "" || len(got) != 3 {
			t.Errorf("etcd holds %v, want stay, other and mine", got)
		}
	})
}
