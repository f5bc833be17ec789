// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"fmt"
	"testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/fakeetcd"
)

// snapshotOf returns a snapshot of n instances.
func snapshotOf(tb testing.TB, n int) *rollcall.Snapshot {
	tb.Helper()
	store := fakeetcd.New()
	defer store.Close()
	conn := store.Connect(context.Background())
	defer conn.Close()
	for i := range n {
		store.Put(fmt.Sprintf("svc/%06d", i), fmt.Sprintf(`{"Addr":"10.0.0.1:%d","Metadata":{"zone":"eu-1"}}`, i+1))
	}
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	snap, err := d.List(context.Background(), "svc")
	if err != nil {
		tb.Fatal(err)
	}
	return snap
}
