// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// Clients are given the drain time to move, from when they were first told to.
func TestCloseWaitsForClients(t *testing.T) {
	const drain = 10 * time.Second
	for _, row := range []struct {
		name    string
		drained time.Duration // how long before the close; 0: not at all
		want    time.Duration
	}{
		{"serving", 0, drain},
		{"just drained", time.Millisecond, drain},
		{"drained for 4 s", 4 * time.Second, 6 * time.Second},
		{"drained for long", time.Minute, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fakeetcd.New()
				defer store.Close()
				directory, err := rollcall.SharedDirectory(store.Connect(t.Context()).Client)
				if err != nil {
					t.Fatal(err)
				}
				f := newFleet(directory, drain, slog.New(slog.DiscardHandler))
				f.apply(&Config{Services: []Service{{Service: "svc", Settings: defaults,
					Endpoint: rollcall.Endpoint{ID: "a", Addr: "10.0.0.1:80"}}}})
				time.Sleep(time.Minute)
				if row.drained > 0 {
					marked := `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"status":"draining"}}`
					if _, err := store.Connect(t.Context()).Client.Put(t.Context(), "svc/a", marked, clientv3.WithIgnoreLease()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(row.drained)
				}
				began := time.Now()
				if err := f.close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began).Round(100 * time.Millisecond); took != row.want {
					t.Errorf("waited %v, want %v", took, row.want)
				}
				if left := store.Values(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		})
	}
}
