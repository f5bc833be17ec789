// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// W4, W5: a temporary denial while the epoch is verified changes nothing for a service whose watch
// lives on: its stream is still probed and its epoch verified.
func TestVerifyIsRefusedForAMoment(t *testing.T) {
	faults := map[string]func(*fakeetcd.Store, *fakeetcd.Conn){
		"another epoch": func(store *fakeetcd.Store, conn *fakeetcd.Conn) { store.Wipe() },
		"silent stream": func(store *fakeetcd.Store, conn *fakeetcd.Conn) { conn.Freeze() },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fakeetcd.New()
				defer store.Close()
				for range 5 {
					store.Put("svc/a", `{"Addr":"a:1"}`)
				}
				conn := store.Connect(context.Background())
				defer conn.Close()
				d, err := NewDirectory(conn.Client, DirectoryOptions{NoConsistencyChecks: true})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				sub, err := d.Subscribe("svc")
				if err != nil {
					t.Fatal(err)
				}
				suspect := func() {
					d.group.Monitor().SuspectEpoch() // as when a member lags
					time.Sleep(5 * time.Second)
				}
				time.Sleep(2 * time.Second)
				conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
				suspect()
				conn.Fail(fakeetcd.Get, nil)
				fault(store, conn)
				store.Put("svc/b", `{"Addr":"b:1"}`)
				suspect()
				time.Sleep(15 * time.Second)
				if snap := sub.Latest(); snap.Instance("svc/b") == nil || snap.Staleness() != nil {
					t.Errorf("svc/b is not followed: %v, stale %v", slices.Collect(snap.All()), snap.Staleness())
				}
			})
		})
	}
}
